//! Sorting more than fits into memory.
//!
//! Comes in: items in any order. Goes out: the same items in theirs. Never here: what they mean.
//!
//! A [`Sorter`] keeps items in memory up to a limit, then writes them as sorted runs into nameless
//! files (gone when they are closed, however the program ends) and merges the runs when it is read.

use crate::code::Code;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Seek, Write};
use std::path::PathBuf;

/// Runs that are merged at once: more are first merged into one.
const RUNS_MAX: usize = 64;

/// Bytes that are read or written at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// What can be sorted outside of memory.
pub trait Spill: Code {
    /// The order. Items that are equal in it may come in any order.
    fn order(&self, other: &Self) -> Ordering;

    /// About how many bytes it holds in memory.
    fn bytes(&self) -> usize;
}

/// Where items go that do not fit into memory.
#[derive(Debug, Clone)]
pub struct Scratch {
    folder: Option<PathBuf>,
    sorter_bytes_max: usize,
}

impl Scratch {
    /// Everything stays in memory.
    #[must_use]
    pub fn memory() -> Self {
        Self {
            folder: None,
            sorter_bytes_max: usize::MAX,
        }
    }

    /// Each sorter keeps about this many bytes in memory; the rest goes into nameless files in
    /// `folder`.
    #[must_use]
    pub fn folder(folder: PathBuf, sorter_bytes_max: usize) -> Self {
        Self {
            folder: Some(folder),
            sorter_bytes_max,
        }
    }
}

/// Takes items in and gives them back sorted.
#[derive(Debug)]
pub struct Sorter<T> {
    scratch: Scratch,
    items: Vec<T>,
    bytes: usize,
    runs: Vec<Run>,
}

impl<T: Spill> Sorter<T> {
    /// An empty one.
    #[must_use]
    pub fn new(scratch: &Scratch) -> Self {
        Self {
            scratch: scratch.clone(),
            items: Vec::new(),
            bytes: 0,
            runs: Vec::new(),
        }
    }

    /// Takes an item in.
    ///
    /// # Errors
    /// When a run cannot be written.
    pub fn push(&mut self, item: T) -> io::Result<()> {
        self.bytes = self.bytes.saturating_add(item.bytes());
        self.items.push(item);
        if self.bytes > self.scratch.sorter_bytes_max {
            self.spill()?;
        }
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        let Some(folder) = &self.scratch.folder else {
            return Ok(());
        };
        if self.runs.len() == RUNS_MAX {
            let merged = Sorted::<T>::merging(std::mem::take(&mut self.runs), Vec::new())?;
            self.runs.push(Run::write(folder, merged)?);
        }
        self.items.sort_unstable_by(T::order);
        let run = Run::write(folder, self.items.drain(..).map(Ok))?;
        self.runs.push(run);
        self.bytes = 0;
        Ok(())
    }

    /// All items, sorted.
    ///
    /// # Errors
    /// When a run cannot be read.
    pub fn sorted(mut self) -> io::Result<Sorted<T>> {
        self.items.sort_unstable_by(T::order);
        if self.runs.is_empty() {
            return Ok(Sorted(Source::Memory(self.items.into_iter())));
        }
        Sorted::merging(self.runs, self.items)
    }
}

/// Items in their order.
#[derive(Debug)]
pub struct Sorted<T>(Source<T>);

#[derive(Debug)]
enum Source<T> {
    Memory(std::vec::IntoIter<T>),
    Merged {
        newest: std::vec::IntoIter<T>,
        runs: Vec<BufReader<File>>,
        heads: BinaryHeap<Reverse<Head<T>>>,
    },
}

impl<T: Spill> Sorted<T> {
    fn merging(runs: Vec<Run>, newest: Vec<T>) -> io::Result<Self> {
        let mut newest = newest.into_iter();
        let mut readers = Vec::with_capacity(runs.len());
        let mut heads = BinaryHeap::new();
        for (number, run) in runs.into_iter().enumerate() {
            let mut reader = run.open()?;
            if let Some(item) = read_item(&mut reader)? {
                heads.push(Reverse(Head { item, run: number }));
            }
            readers.push(reader);
        }
        if let Some(item) = newest.next() {
            let run = readers.len();
            heads.push(Reverse(Head { item, run }));
        }
        Ok(Sorted(Source::Merged {
            newest,
            runs: readers,
            heads,
        }))
    }
}

impl<T: Spill> Iterator for Sorted<T> {
    type Item = io::Result<T>;

    fn next(&mut self) -> Option<io::Result<T>> {
        match &mut self.0 {
            Source::Memory(items) => items.next().map(Ok),
            Source::Merged {
                newest,
                runs,
                heads,
            } => {
                let Reverse(Head { item, run }) = heads.pop()?;
                let next = match runs.get_mut(run) {
                    Some(reader) => match read_item(reader) {
                        Ok(next) => next,
                        Err(e) => return Some(Err(e)),
                    },
                    None => newest.next(),
                };
                heads.extend(next.map(|item| Reverse(Head { item, run })));
                Some(Ok(item))
            }
        }
    }
}

/// The next item of a run.
#[derive(Debug)]
struct Head<T> {
    item: T,
    run: usize,
}

impl<T: Spill> Ord for Head<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_item = self.item.order(&other.item);
        by_item.then(self.run.cmp(&other.run))
    }
}

impl<T: Spill> PartialOrd for Head<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Spill> PartialEq for Head<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T: Spill> Eq for Head<T> {}

/// Sorted items in a nameless file, each behind its length.
#[derive(Debug)]
struct Run(File);

impl Run {
    fn write<T: Spill>(
        folder: &PathBuf,
        items: impl Iterator<Item = io::Result<T>>,
    ) -> io::Result<Self> {
        let mut writer = BufWriter::with_capacity(BLOCK_BYTES, tempfile::tempfile_in(folder)?);
        let mut encoded = Vec::new();
        for item in items {
            encoded.clear();
            item?.put(&mut encoded);
            let length = u32::try_from(encoded.len())
                .map_err(|_| io::Error::new(ErrorKind::InvalidData, "an item of over 4 GiB"))?;
            writer.write_all(&length.to_le_bytes())?;
            writer.write_all(&encoded)?;
        }
        Ok(Self(writer.into_inner().map_err(io::Error::from)?))
    }

    fn open(mut self) -> io::Result<BufReader<File>> {
        self.0.rewind()?;
        Ok(BufReader::with_capacity(BLOCK_BYTES, self.0))
    }
}

fn read_item<T: Spill>(reader: &mut BufReader<File>) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match reader.read_exact(&mut length) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut encoded = vec![0; u32::from_le_bytes(length) as usize];
    reader.read_exact(&mut encoded)?;
    let altered = || io::Error::new(ErrorKind::InvalidData, "a scratch file was altered");
    T::take(&mut encoded.as_slice())
        .map(Some)
        .ok_or_else(altered)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Spill for i64 {
        fn order(&self, other: &Self) -> Ordering {
            self.cmp(other)
        }

        fn bytes(&self) -> usize {
            8
        }
    }

    fn sorted(scratch: &Scratch, items: impl Iterator<Item = i64>) -> Vec<i64> {
        let mut sorter = Sorter::new(scratch);
        for item in items {
            sorter.push(item).expect("it is written");
        }
        let sorted = sorter.sorted().expect("it is read");
        sorted.map(|item| item.expect("it is read")).collect()
    }

    #[test]
    fn items_come_back_sorted_from_memory_and_from_disk() {
        let folder = std::env::temp_dir();
        // 1000 items: some stay in memory, some fill more runs than are merged at once.
        for bytes_max in [usize::MAX, 4_000, 1_000, 100, 1] {
            let scratch = Scratch::folder(folder.clone(), bytes_max);
            let shuffled = (0..1_000).map(|number| number * 7_919 % 1_000);
            let expected: Vec<i64> = (0..1_000).collect();
            assert_eq!(sorted(&scratch, shuffled), expected, "{bytes_max}");
        }
        assert_eq!(sorted(&Scratch::memory(), [2, 1, 2].into_iter()), [1, 2, 2]);
        assert!(sorted(&Scratch::memory(), std::iter::empty()).is_empty());
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let scratch = Scratch::folder(PathBuf::from("/no/such/folder"), 1);
        let mut sorter = Sorter::new(&scratch);
        assert!(sorter.push(1_i64).is_err());
    }
}
