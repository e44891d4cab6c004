//! Events from files: JSON lines, plain or gzip.

use super::event::Outgoing;
use anyhow::Context;
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BUFFER_BYTES: usize = 1 << 16;

/// A line of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The line as it is, keyed by its ticker where it has one.
    pub record: Outgoing,
    /// When the event happened, Unix milliseconds, where the line tells.
    pub happened_ms: Option<i64>,
}

/// The lines of some files, one file after the other.
pub struct Lines {
    files: std::vec::IntoIter<PathBuf>,
    current: Option<(PathBuf, Box<dyn BufRead>, u64)>,
}

/// What of an event decides its key and its time.
#[derive(Deserialize)]
struct Place<'a> {
    ticker: Option<String>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
}

impl Lines {
    /// The lines of `files`; `-` is standard input.
    pub fn new(files: Vec<PathBuf>) -> Lines {
        Lines {
            files: files.into_iter(),
            current: None,
        }
    }

    fn read(&mut self) -> anyhow::Result<Option<Line>> {
        loop {
            if self.current.is_none() {
                let Some(path) = self.files.next() else {
                    return Ok(None);
                };
                let reader = open(&path)
                    .with_context(|| format!("--input {}: cannot be read", path.display()))?;
                self.current = Some((path, reader, 0));
            }
            let (path, reader, number) = self.current.as_mut().expect("a file is open");
            *number += 1;
            let mut line = Vec::new();
            reader.read_until(b'\n', &mut line).with_context(|| {
                format!(
                    "--input {}, line {number}: the file is damaged or cut off; fetch it again",
                    path.display()
                )
            })?;
            if line.is_empty() {
                self.current = None;
                continue;
            }
            while line
                .last()
                .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
            {
                line.pop();
            }
            if !line.is_empty() {
                return Ok(Some(place(line)));
            }
        }
    }
}

impl Iterator for Lines {
    type Item = anyhow::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

fn open(path: &Path) -> std::io::Result<Box<dyn BufRead>> {
    let raw: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path)?)
    };
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, raw);
    if reader.fill_buf()?.starts_with(&GZIP_MAGIC) {
        let plain = MultiGzDecoder::new(reader);
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, plain)));
    }
    Ok(Box::new(reader))
}

/// A line that is no event is sent as it is, without a key: judging it is the processor's affair.
fn place(line: Vec<u8>) -> Line {
    let place = serde_json::from_slice::<Place<'_>>(&line).ok();
    let key = place.as_ref().and_then(|place| place.ticker.clone());
    let happened_ms = place.and_then(|place| millis(place.timestamp?.get()));
    Line {
        record: Outgoing {
            key: key.map(String::into_bytes),
            value: Some(line),
            ..Outgoing::default()
        },
        happened_ms,
    }
}

/// Unix seconds, with or without a fraction, as milliseconds.
fn millis(seconds: &str) -> Option<i64> {
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let whole: i64 = whole.parse().ok()?;
    let digits = format!("{:0<3}", fraction.get(..3.min(fraction.len()))?);
    let fraction: i64 = digits.parse().ok()?;
    whole.checked_mul(1_000)?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    const TEXT: &str =
        "{\"ticker\":\"SPY\",\"timestamp\":1381132800.464}\r\n\n{\"ticker\":7}\nnot JSON";

    fn read(name: &str, bytes: &[u8]) -> Vec<Line> {
        let path = std::env::temp_dir().join(format!("tickproof-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).expect("a temporary file");
        let lines = Lines::new(vec![path.clone()]).collect::<anyhow::Result<_>>();
        std::fs::remove_file(&path).expect("it is there");
        lines.expect("it is readable")
    }

    #[test]
    fn lines_are_keyed_by_ticker_and_sent_as_they_are() {
        let lines = read("plain", TEXT.as_bytes());
        let keys: Vec<Option<&[u8]>> = lines
            .iter()
            .map(|line| line.record.key.as_deref())
            .collect();
        assert_eq!(keys, [Some(&b"SPY"[..]), None, None]);
        assert_eq!(lines[0].happened_ms, Some(1_381_132_800_464));
        assert_eq!(lines[2].record.value.as_deref(), Some(&b"not JSON"[..]));
    }

    #[test]
    fn a_gzip_file_reads_the_same() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(TEXT.as_bytes()).expect("memory");
        let packed = encoder.finish().expect("memory");
        assert_eq!(read("gzip", &packed), read("plain2", TEXT.as_bytes()));
    }

    #[test]
    fn a_missing_or_damaged_file_is_told_by_name() {
        let mut lines = Lines::new(vec![PathBuf::from("/no/such/file")]);
        let error = lines.next().expect("an error").expect_err("it is missing");
        assert!(
            format!("{error:#}").contains("--input /no/such/file"),
            "{error:#}"
        );
        let path = std::env::temp_dir().join(format!("tickproof-{}-cut", std::process::id()));
        std::fs::write(&path, [0x1f, 0x8b, 8, 0, 0]).expect("a temporary file");
        let error = Lines::new(vec![path.clone()]).next().expect("an error");
        std::fs::remove_file(&path).expect("it is there");
        let error = format!("{:#}", error.expect_err("it is cut off"));
        assert!(error.contains("fetch it again"), "{error}");
    }

    #[test]
    fn seconds_become_milliseconds() {
        for (text, expected) in [
            ("1381132800", Some(1_381_132_800_000)),
            ("1381132800.4", Some(1_381_132_800_400)),
            ("1381132800.4649", Some(1_381_132_800_464)),
            ("\"1\"", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(millis(text), expected, "{text}");
        }
    }
}
