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
use proptest::sample::select;
use proptest::test_runner::FileFailurePersistence;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
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

/// The least that RocksDB takes: most of what is put soon lies in files.
const SMALL_BUFFER_BYTES: usize = 64 << 10;

/// A store whose pieces are soon in files.
fn open_small(directory: &Path, incarnation: &str) -> RocksStateStore {
    RocksStateStore::open_with_buffer(directory, 7, incarnation, SMALL_BUFFER_BYTES)
        .expect("the directory is writable")
}

/// kill -9 of its process: the files stay as they are at this moment, and what is in memory is lost.
/// Returns their folder.
fn kill(directory: &Path, store: RocksStateStore) -> PathBuf {
    let folder = store.folder().to_owned();
    let copy = directory.join("copy");
    fs::create_dir_all(&copy).expect("writable");
    for path in files(&folder) {
        let to = copy.join(path.file_name().expect("it is an entry"));
        match fs::copy(&path, to) {
            Err(error) if error.kind() != ErrorKind::NotFound => panic!("{error}"),
            // Or RocksDB has removed it meanwhile.
            _ => {}
        }
    }
    // Lets go of the lock, as the end of a process does.
    drop(store);
    fs::create_dir_all(folder.parent().expect("it is a worker's")).expect("writable");
    fs::rename(copy, &folder).expect("moved");
    folder
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("it is there").flatten();
    entries.map(|entry| entry.path()).collect()
}

#[derive(Debug, Clone)]
enum Step {
    /// Puts and deletes pieces, told by number; the same ones again, too.
    Apply {
        partition: i32,
        puts: Vec<u8>,
        deletes: Vec<u8>,
    },
    Drop {
        partition: i32,
    },
    /// The process starts again, after the one before it has come to this end.
    Restart(End),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Killed,
    /// Killed, and the next one has its name.
    KilledAndReplaced,
    /// It goes on, because two processes were given one ordinal.
    NotYet,
}

fn step() -> impl Strategy<Value = Step> {
    let partition = prop_oneof![-1..3_i32, Just(i32::MAX), Just(i32::MIN)].boxed();
    let apply = (partition.clone(), vec(0..40_u8, 0..6), vec(0..40_u8, 0..4));
    const ENDS: [End; 4] = [
        End::Closed,
        End::Killed,
        End::KilledAndReplaced,
        End::NotYet,
    ];
    prop_oneof![
        20 => apply.prop_map(|(partition, puts, deletes)| Step::Apply { partition, puts, deletes }),
        2 => partition.prop_map(|partition| Step::Drop { partition }),
        2 => select(&ENDS[..]).prop_map(Step::Restart),
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

/// A store of each kind, given the same. What one was given, only that one gives back: so the one in
/// memory is the model, and a new one is empty, whatever lies on the disk.
struct Pair {
    rocks: RocksStateStore,
    memory: MemoryStateStore,
}

impl Pair {
    fn of(rocks: RocksStateStore) -> Pair {
        let memory = MemoryStateStore::default();
        Pair { rocks, memory }
    }

    fn apply(&mut self, partition: i32, batch: StateBatch) -> Result<(), TestCaseError> {
        let partition = PartitionId(partition);
        let applied = self.rocks.apply(partition, batch.clone());
        prop_assert_eq!(applied, self.memory.apply(partition, batch));
        Ok(())
    }

    fn drop_partition(&mut self, partition: i32) -> Result<(), TestCaseError> {
        let partition = PartitionId(partition);
        let dropped = self.rocks.drop_partition(partition);
        prop_assert_eq!(dropped, self.memory.drop_partition(partition));
        Ok(())
    }

    /// Both say the same of every piece: its content, or why there is none.
    fn assert_same(&mut self, partitions: &BTreeSet<i32>) -> Result<(), TestCaseError> {
        for &partition in partitions {
            for number in 0..40 {
                let (partition, (key, _)) = (PartitionId(partition), piece(number));
                prop_assert_eq!(
                    self.rocks.get(partition, key),
                    self.memory.get(partition, key)
                );
            }
        }
        Ok(())
    }
}

/// All starts of one worker on one machine.
struct Machine {
    directory: PathBuf,
    starts: u32,
    running: Pair,
    /// Processes that were replaced and go on.
    others: Vec<Pair>,
}

impl Machine {
    fn new(directory: PathBuf) -> Machine {
        Machine {
            running: Pair::of(open_small(&directory, "start-0")),
            others: Vec::new(),
            starts: 0,
            directory,
        }
    }

    fn restart(mut self, end: End) -> Result<Machine, TestCaseError> {
        let mut left = None;
        match end {
            End::Closed => drop(self.running),
            End::Killed | End::KilledAndReplaced => {
                left = Some(kill(&self.directory, self.running.rocks));
            }
            End::NotYet => self.others.push(self.running),
        }
        if end != End::KilledAndReplaced {
            self.starts += 1;
        }
        let rocks = open_small(&self.directory, &format!("start-{}", self.starts));
        if let Some(left) = left.filter(|left| left != rocks.folder()) {
            prop_assert!(!left.exists(), "a leftover goes");
        }
        Ok(Machine {
            running: Pair::of(rocks),
            ..self
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]
    #[test]
    fn rocksdb_and_memory_tell_the_same(steps in vec(step(), 1..60), name in any::<u64>()) {
        let directory = directory(&format!("model-{name:016x}"));
        let mut partitions = BTreeSet::new();
        let mut machine = Machine::new(directory.clone());
        for step in steps {
            match step {
                Step::Apply { partition, puts, deletes } => {
                    partitions.insert(partition);
                    let deletes = deletes.into_iter().filter(|number| !puts.contains(number));
                    let batch = StateBatch {
                        deletes: deletes.map(|number| piece(number).0).collect(),
                        puts: puts.iter().map(|&number| piece(number)).collect(),
                    };
                    machine.running.apply(partition, batch)?;
                }
                Step::Drop { partition } => machine.running.drop_partition(partition)?,
                Step::Restart(end) => machine = machine.restart(end)?,
            }
            machine.running.assert_same(&partitions)?;
            for other in &mut machine.others {
                other.assert_same(&partitions)?;
            }
        }
        drop(machine);
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
    let mut crashed = open(&directory, "crashed");
    crashed.apply(PartitionId(0), batch).expect("sound");
    let left = kill(&directory, crashed);
    assert!(left.exists());
    let mut second = open(&directory, "second");
    assert!(!left.exists(), "a leftover goes");
    let folder = second.folder().to_owned();
    assert_eq!(
        first.get(PartitionId(0), key),
        Ok(content),
        "an open store stays"
    );
    assert!(
        second.get(PartitionId(0), key).is_err(),
        "and is not the same"
    );
    drop(second);
    assert!(!folder.exists(), "its folder goes with the store");
}

#[test]
fn what_the_disk_has_changed_is_an_error_and_never_other_bytes() {
    let directory = directory("damaged");
    let mut store = open_small(&directory, "only");
    // Several times what its buffers hold: most of it is in files when the last call returns.
    let pieces: Vec<(PieceKey, Bytes)> = (0..3_000_u32)
        .map(|number| {
            let size = if number % 100 == 0 { 2_000 } else { 50 };
            let content: Bytes = number.to_le_bytes().repeat(size).into();
            (PieceKey::of(BucketKey(0), &content), content)
        })
        .collect();
    for piece in &pieces {
        let batch = StateBatch {
            puts: vec![piece.clone()],
            deletes: vec![],
        };
        store.apply(PartitionId(0), batch).expect("sound");
    }
    let ends_with = |path: &Path, ending| path.extension().is_some_and(|it| it == ending);
    for ending in ["sst", "blob"] {
        let files = files(store.folder());
        let mut damaged = 0;
        for path in files.iter().filter(|path| ends_with(path, ending)) {
            // RocksDB may have removed it meanwhile.
            let Ok(mut bytes) = fs::read(path) else {
                continue;
            };
            bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 4);
            damaged += usize::from(fs::write(path, bytes).is_ok());
        }
        assert!(damaged > 0, "no .{ending}");
    }
    let mut errors = 0;
    for (key, content) in &pieces {
        match store.get(PartitionId(0), *key) {
            Ok(found) => assert_eq!(found, *content),
            Err(StateError(message)) => {
                assert!(message.contains("start the process again"), "{message}");
                errors += 1;
            }
        }
    }
    assert!(errors > 0, "nothing of it was in the files");
    drop(store);
    let mut next = open(&directory, "next");
    let (key, content) = pieces[0].clone();
    let batch = StateBatch {
        puts: vec![(key, content.clone())],
        deletes: vec![],
    };
    next.apply(PartitionId(0), batch).expect("sound");
    assert_eq!(next.get(PartitionId(0), key), Ok(content));
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
