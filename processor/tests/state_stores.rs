//! Every local state store behaves as the one in memory.

use bytes::Bytes;
use processor::adapters::local_state::LocalState;
use processor::adapters::rocks::RocksStateStore;
use processor::config::{ProcessorConfig, StateKind};
use processor::io::{BucketKey, PieceKey, StateBatch, StateError, StateStore};
use processor::state::MemoryStateStore;
use processor::units::PartitionId;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A directory of one test, empty.
fn directory(test: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    // What an earlier run has left there.
    let removed = if directory.is_dir() {
        fs::remove_dir_all(&directory)
    } else if directory.exists() {
        fs::remove_file(&directory)
    } else {
        Ok(())
    };
    removed.expect("it is this test's own");
    directory
}

fn open(directory: &Path, incarnation: &str) -> RocksStateStore {
    RocksStateStore::open(directory, 7, incarnation).expect("the directory is writable")
}

#[derive(Debug, Clone)]
enum Step {
    /// Puts and deletes pieces, told by number.
    Apply {
        partition: i32,
        puts: Vec<u8>,
        deletes: Vec<u8>,
    },
    Drop {
        partition: i32,
    },
    /// The process starts again.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let partition = prop_oneof![-1..3_i32, Just(i32::MAX), Just(i32::MIN)].boxed();
    let apply = (partition.clone(), vec(0..40_u8, 0..6), vec(0..40_u8, 0..4));
    prop_oneof![
        20 => apply.prop_map(|(partition, puts, deletes)| Step::Apply { partition, puts, deletes }),
        2 => partition.prop_map(|partition| Step::Drop { partition }),
        1 => Just(Step::Restart),
    ]
}

/// One of 40 pieces: small and large, in buckets below and above zero.
fn piece(number: u8) -> (PieceKey, Bytes) {
    let size = [0, 1, 100, 5_000, 70_000][usize::from(number % 5)];
    let bytes = (0..size).map(|at: u32| (at % 251) as u8 ^ number);
    let content: Bytes = std::iter::once(number).chain(bytes).collect();
    let bucket = BucketKey((i64::from(number) / 8 - 2) * 60_000);
    (PieceKey::of(bucket, &content), content)
}

fn assert_same(
    partitions: &BTreeSet<i32>,
    rocks: &mut RocksStateStore,
    memory: &mut MemoryStateStore,
) -> Result<(), TestCaseError> {
    for &partition in partitions {
        for number in 0..40 {
            let (partition, (key, _)) = (PartitionId(partition), piece(number));
            prop_assert_eq!(rocks.get(partition, key), memory.get(partition, key));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn rocksdb_and_memory_tell_the_same(steps in vec(step(), 1..60), name in any::<u64>()) {
        let directory = directory(&format!("model-{name:016x}"));
        let mut partitions = BTreeSet::new();
        let mut starts = 0;
        let mut rocks = open(&directory, "start-0");
        let mut memory = MemoryStateStore::default();
        for step in steps {
            match step {
                Step::Apply { partition, puts, deletes } => {
                    partitions.insert(partition);
                    let puts: BTreeSet<u8> = puts.into_iter().collect();
                    let deletes = deletes.into_iter().filter(|number| !puts.contains(number));
                    let batch = StateBatch {
                        deletes: deletes.map(|number| piece(number).0).collect(),
                        puts: puts.iter().map(|&number| piece(number)).collect(),
                    };
                    rocks.apply(PartitionId(partition), batch.clone()).expect("the disk is sound");
                    memory.apply(PartitionId(partition), batch).expect("memory is");
                }
                Step::Drop { partition } => {
                    rocks.drop_partition(PartitionId(partition)).expect("the disk is sound");
                    memory.drop_partition(PartitionId(partition)).expect("memory is");
                }
                Step::Restart => {
                    starts += 1;
                    // What an older start left is never read, whether it ended well or not.
                    rocks = open(&directory, &format!("start-{starts}"));
                    memory = MemoryStateStore::default();
                }
            }
            assert_same(&partitions, &mut rocks, &mut memory)?;
        }
        drop(rocks);
        fs::remove_dir_all(&directory).expect("it is this test's own");
    }
}

#[test]
fn what_a_former_start_left_behind_is_removed_and_what_is_in_use_stays() {
    let directory = directory("leftovers");
    let (key, content) = piece(3);
    let batch = StateBatch {
        puts: vec![(key, content.clone())],
        deletes: vec![],
    };
    let mut first = open(&directory, "first");
    first.apply(PartitionId(0), batch.clone()).expect("sound");
    let left = directory.join("worker-7").join("crashed");
    {
        let mut crashed = open(&directory, "crashed");
        crashed.apply(PartitionId(0), batch).expect("sound");
        // A kill leaves the files.
        let copy = directory.join("copy");
        fs::create_dir_all(&copy).expect("writable");
        for entry in fs::read_dir(crashed.folder())
            .expect("it is there")
            .flatten()
        {
            fs::copy(entry.path(), copy.join(entry.file_name())).expect("copied");
        }
        drop(crashed);
        assert!(!left.exists(), "its folder goes with the store");
        fs::rename(copy, &left).expect("moved");
    }
    assert!(left.exists());
    let mut second = open(&directory, "second");
    assert!(!left.exists(), "a leftover goes");
    assert_eq!(
        first.get(PartitionId(0), key),
        Ok(content),
        "an open store stays"
    );
    assert!(
        second.get(PartitionId(0), key).is_err(),
        "and is not the same"
    );
}

#[test]
fn a_directory_that_vanishes_is_told_with_the_way_out() {
    let directory = directory("vanishes");
    let mut store = open(&directory, "only");
    fs::remove_dir_all(&directory).expect("it is this test's own");
    let large = |number: u32| {
        let content: Bytes = number.to_le_bytes().repeat(1 << 20).into();
        (PieceKey::of(BucketKey(0), &content), content)
    };
    let error = (0..64).find_map(|number| {
        let (key, content) = large(number);
        let batch = StateBatch {
            puts: vec![(key, content)],
            deletes: vec![],
        };
        let applied = store.apply(PartitionId(0), batch);
        let read = |_| store.get(PartitionId(0), large(0).0);
        applied.and_then(read).err()
    });
    let StateError(message) = error.expect("256 MiB cannot stay in its write buffers");
    assert!(message.contains("removes this folder"), "{message}");
    assert!(message.contains("start the process again"), "{message}");
    // The next start is as good as ever.
    let (key, content) = piece(1);
    let mut next = open(&directory, "next");
    let batch = StateBatch {
        puts: vec![(key, content.clone())],
        deletes: vec![],
    };
    next.apply(PartitionId(0), batch).expect("sound");
    assert_eq!(next.get(PartitionId(0), key), Ok(content));
}

#[test]
fn a_directory_that_cannot_be_written_is_told_by_its_key() {
    let directory = directory("a-file");
    fs::write(&directory, "not a directory").expect("writable");
    let error = RocksStateStore::open(&directory, 0, "x")
        .err()
        .expect("it is a file");
    assert!(error.to_string().contains("state.directory"), "{error}");
}

#[test]
fn deleted_pieces_give_their_room_back() {
    let directory = directory("room");
    let mut store = open(&directory, "only");
    let size_of = |folder: &Path| -> u64 {
        let files = fs::read_dir(folder).expect("it is there").flatten();
        files
            .filter_map(|file| Some(file.metadata().ok()?.len()))
            .sum()
    };
    let mut most = 0;
    let mut last: Option<PieceKey> = None;
    for number in 0..400_u32 {
        let mut content = number.to_le_bytes().repeat(1 << 18);
        content.truncate(1 << 20);
        let content = Bytes::from(content);
        let key = PieceKey::of(BucketKey(i64::from(number) * 60_000), &content);
        let batch = StateBatch {
            puts: vec![(key, content)],
            deletes: last.replace(key).into_iter().collect(),
        };
        store.apply(PartitionId(0), batch).expect("sound");
        most = most.max(size_of(store.folder()));
    }
    assert!(most < 256 << 20, "{most} bytes for one live mebibyte");
}

#[test]
fn the_configuration_chooses_the_store() {
    let directory = directory("chosen");
    let example = ProcessorConfig::from_toml(ProcessorConfig::example()).expect("it is valid");
    let mut config = example.state;
    assert_eq!(config.store, StateKind::RocksDb);
    config.directory = directory.display().to_string();
    let (key, content) = piece(2);
    for kind in [StateKind::RocksDb, StateKind::Memory] {
        config.store = kind;
        let mut store = LocalState::open(&config, 0, "x").expect("writable");
        assert_eq!(
            directory.join("worker-0/x").exists(),
            kind == StateKind::RocksDb
        );
        let batch = StateBatch {
            puts: vec![(key, content.clone())],
            deletes: vec![],
        };
        store.apply(PartitionId(0), batch).expect("sound");
        assert_eq!(store.get(PartitionId(0), key), Ok(content.clone()));
        store.drop_partition(PartitionId(0)).expect("sound");
        assert!(store.get(PartitionId(0), key).is_err());
    }
}
