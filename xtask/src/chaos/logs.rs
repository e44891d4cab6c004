//! What the processors' logs say: JSON lines.
//!
//! Comes in: the log files. Goes out: the lines since the last look, by what happened.
//! Never here: a judgement.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

/// One line, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Whose log it is in.
    pub ordinal: u32,
    /// What happened; empty where the line is no JSON.
    pub message: String,
}

#[derive(Deserialize)]
struct Parsed {
    message: String,
}

/// The logs of all processors.
#[derive(Debug)]
pub struct Logs {
    folder: PathBuf,
    /// How far each log was read.
    positions: BTreeMap<u32, u64>,
}

impl Logs {
    /// Of the processors with these ordinals, in that folder; read from the beginning.
    #[must_use]
    pub fn new(folder: PathBuf, ordinals: &[u32]) -> Logs {
        let positions = ordinals.iter().map(|ordinal| (*ordinal, 0)).collect();
        Logs { folder, positions }
    }

    /// The lines that came since the last look; an unfinished one comes the next time.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn new_lines(&mut self) -> anyhow::Result<Vec<Line>> {
        let mut lines = Vec::new();
        for (ordinal, position) in &mut self.positions {
            let path = self.folder.join(format!("processor-{ordinal}.log"));
            let Ok(mut file) = File::open(&path) else {
                continue; // it was not started yet
            };
            file.seek(SeekFrom::Start(*position))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let end = bytes
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1);
            *position += end as u64;
            let text = String::from_utf8_lossy(&bytes[..end]);
            lines.extend(text.lines().map(|line| parsed(*ordinal, line)));
        }
        Ok(lines)
    }
}

fn parsed(ordinal: u32, text: &str) -> Line {
    // Not every line is JSON: a panic's message is not.
    let message = serde_json::from_str::<Parsed>(text).map(|parsed| parsed.message);
    Line {
        ordinal,
        message: message.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_whole_new_lines_are_read() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let mut logs = Logs::new(folder.path().to_owned(), &[0, 1]);
        assert!(logs.new_lines()?.is_empty());
        let mut log = File::create(folder.path().join("processor-1.log"))?;
        writeln!(log, "{{\"message\":\"one\"}}")?;
        write!(log, "{{\"message\":")?;
        let seen = logs.new_lines()?;
        assert_eq!((seen.len(), seen[0].ordinal), (1, 1));
        assert_eq!(seen[0].message, "one");
        writeln!(log, "\"two\"}}\nno JSON")?;
        let messages: Vec<String> = logs.new_lines()?.into_iter().map(|l| l.message).collect();
        assert_eq!(messages, ["two", ""]);
        Ok(())
    }
}
