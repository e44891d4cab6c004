//! Real events as the input of a run: JSON lines, plain, gzip or zstd.
//!
//! Comes in: a file's path or standard input. Goes out: [`InputLine`]s in the order of the file,
//! each with its moment in virtual time.
//! Never here: validation of events (that is the processor's affair); a whole file in memory.
//!
//! The input is read once before the run, to learn its first and last moment, and again by every
//! run. Standard input is kept in a temporary file for that.

mod compression;
mod lines;

use bytes::Bytes;
pub use lines::Lines;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

/// Longest line, bytes.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// A line further ahead of the line before than this is sent at once: its timestamp is taken for
/// poison, which is the processor's affair. 7 days.
pub const JUMP_MS_MAX: i64 = 7 * 86_400_000;
/// Lines before this cannot start the clock of a run: 2000-01-01.
const START_UNIX_MS_MIN: i64 = 946_684_800_000;
/// The run starts this long before its first event.
const LEAD_MS: i64 = 10_000;

/// One record to produce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputLine {
    /// When it is sent, virtual milliseconds; never less than the line before.
    pub at_ms: u64,
    /// Its ticker, if it has one.
    pub key: Option<Bytes>,
    /// The line.
    pub value: Bytes,
}

/// What can be wrong with an input. Every message names the file and the line, and the fix.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It cannot be opened or read.
    #[error(
        "input {name}: {cause}; give the path of a readable file of JSON lines (plain, gzip or zstd), or - for standard input"
    )]
    Unreadable {
        /// The file.
        name: String,
        /// The system's words.
        cause: io::Error,
    },
    /// It ends, or is damaged, in the middle.
    #[error(
        "input {name}: cannot read on after line {line}: {cause}; the file is damaged or cut off, fetch it again"
    )]
    Damaged {
        /// The file.
        name: String,
        /// Last good line.
        line: u64,
        /// The decoder's words.
        cause: io::Error,
    },
    /// A line that is no event.
    #[error("input {name}, line {line}: {what}; {fix}")]
    Line {
        /// The file.
        name: String,
        /// Its number, from 1.
        line: u64,
        /// What is wrong.
        what: String,
        /// What to do about it.
        fix: &'static str,
    },
    /// Nothing in it.
    #[error("input {name} has no lines; give a file with one JSON event a line")]
    Empty {
        /// The file.
        name: String,
    },
}

/// An input that was looked through, ready to be played.
#[derive(Debug)]
pub struct Input {
    name: String,
    source: Source,
    summary: Summary,
}

#[derive(Debug)]
enum Source {
    Path(PathBuf),
    /// Standard input, kept in a file that has no name any more.
    Spool(File),
}

/// What the first reading found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Lines (empty ones do not count).
    pub lines: u64,
    /// Unix milliseconds at virtual time 0: shortly before the first event.
    pub start_unix_ms: i64,
    /// Virtual milliseconds of the last line.
    pub last_ms: u64,
    /// Lines that lie more than [`JUMP_MS_MAX`] ahead of the line before and are sent at once.
    pub ahead: u64,
    /// Lines whose timestamp is before that of a line before; they are sent in the file's order.
    pub behind: u64,
}

impl Input {
    /// Opens and looks through `path`; `-` is standard input.
    ///
    /// # Errors
    /// When it cannot be read, or one of its lines cannot be placed in time.
    pub fn open(path: &Path) -> Result<Input, InputError> {
        let (name, source) = if path == Path::new("-") {
            let name = "standard input".to_owned();
            let spool = spool().map_err(|cause| InputError::Unreadable {
                name: name.clone(),
                cause,
            })?;
            (name, Source::Spool(spool))
        } else {
            (path.display().to_string(), Source::Path(path.to_owned()))
        };
        let mut input = Input {
            name,
            source,
            summary: Summary {
                lines: 0,
                start_unix_ms: 0,
                last_ms: 0,
                ahead: 0,
                behind: 0,
            },
        };
        input.summary = input.look_through()?;
        Ok(input)
    }

    /// What the first reading found.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// All lines from the first.
    ///
    /// # Errors
    /// When it cannot be opened again.
    pub fn lines(&self) -> Result<Lines, InputError> {
        let unreadable = |cause| InputError::Unreadable {
            name: self.name.clone(),
            cause,
        };
        let file = match &self.source {
            Source::Path(path) => File::open(path).map_err(unreadable)?,
            Source::Spool(file) => {
                // Runs come one after the other, so that sharing the position does no harm.
                let mut file = file.try_clone().map_err(unreadable)?;
                file.rewind().map_err(unreadable)?;
                file
            }
        };
        let reader = compression::decoded(file).map_err(unreadable)?;
        Ok(Lines::new(
            self.name.clone(),
            reader,
            self.summary.start_unix_ms,
        ))
    }

    fn look_through(&self) -> Result<Summary, InputError> {
        let start_unix_ms = self.start()?;
        let mut lines = self.lines()?.from(start_unix_ms);
        let mut last_ms = 0;
        for line in lines.by_ref() {
            last_ms = line?.at_ms;
        }
        Ok(Summary {
            lines: lines.count_so_far(),
            start_unix_ms,
            last_ms,
            ahead: lines.ahead(),
            behind: lines.behind(),
        })
    }

    /// Shortly before the first line that has a plausible time.
    fn start(&self) -> Result<i64, InputError> {
        let mut lines = self.lines()?;
        let mut first_unix_ms = None;
        while let Some(unix_ms) = lines.next_unix_ms() {
            let unix_ms = unix_ms?;
            first_unix_ms.get_or_insert(unix_ms);
            if unix_ms >= START_UNIX_MS_MIN {
                return Ok(unix_ms - LEAD_MS);
            }
        }
        first_unix_ms
            .map(|unix_ms| unix_ms - LEAD_MS)
            .ok_or_else(|| InputError::Empty {
                name: self.name.clone(),
            })
    }
}

/// Copies standard input to a temporary file without a name.
#[allow(
    clippy::disallowed_methods,
    reason = "only the file's passing name depends on the process"
)]
fn spool() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("tickproof-input-{}", std::process::id()));
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    io::copy(&mut io::stdin().lock(), &mut file)?;
    file.flush()?;
    Ok(file)
}

#[cfg(test)]
mod tests;
