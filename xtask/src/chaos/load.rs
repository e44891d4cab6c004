//! The load: real trades moved to now where there are any, generated events otherwise; with hostile
//! records, duplicates and late events among them.
//!
//! Comes in: a file of trades, a seed. Goes out: a `processor produce` that is fed until it is stopped.
//! Never here: faults.

use super::draw::Draw;
use super::fleet::bound_to_this_process;
use anyhow::{Context, bail};
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Share of hostile records.
const HOSTILE: &str = "0.005";
/// Share of records that are sent twice.
const DUPLICATES: &str = "0.03";
/// Generated records a second.
const RATE: &str = "300";
/// Real trades happen this many times faster than they did.
const SPEED: u32 = 10;
/// Of a hundred real trades, so many come late.
const LATE_PERCENT: u64 = 2;
/// How late they come at most, in the trades' own time.
const LATE_MS_MAX: u64 = 20_000;
/// The first trade is moved this far before now, so that the faster time does not reach the future.
const HEAD_START_MS: i64 = 3 * 3_600_000;
/// The market opens this long after the first printed trade of a day.
const OPENING_MS: i64 = 19_800_000;

/// What the load consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Trades of this file.
    Trades(PathBuf),
    /// The generator of `processor produce`.
    Generated,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Trades(file) => {
                let name = file.file_name().unwrap_or_default();
                write!(f, "real trades ({})", name.display())
            }
            Origin::Generated => write!(f, "generated events"),
        }
    }
}

/// What was sent, as `processor produce --json` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Sent {
    /// Records that the brokers acknowledged.
    pub delivered: u64,
    /// Records that were given up.
    pub failed: u64,
    /// Hostile records among them.
    pub hostile: u64,
    /// Records that were sent twice.
    pub duplicates: u64,
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    child: Child,
    log: PathBuf,
    stop: Arc<AtomicBool>,
    feeder: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts it: `program` is the processor's binary, `folder` takes its output.
    ///
    /// # Errors
    /// When it cannot be started, or the trades cannot be read.
    pub fn start(
        program: &Path,
        config: &Path,
        folder: &Path,
        origin: &Origin,
        draw: Draw,
        batch: u64,
    ) -> anyhow::Result<Load> {
        let log = folder.join("produce.log");
        let mut command = bound_to_this_process(program);
        command.arg("produce").arg("--config").arg(config);
        command.args(["--hostile", HOSTILE, "--duplicates", DUPLICATES, "--json"]);
        command.args(["--seed", &draw.any("load", batch).to_string()]);
        match origin {
            Origin::Trades(_) => command.args(["--input", "-"]),
            Origin::Generated => command.args(["--generate", RATE, "--late", "0.03"]),
        };
        let mut child = spawn(&mut command, &log)?;
        let stop = Arc::new(AtomicBool::new(false));
        let feeder = match (origin, child.stdin.take()) {
            (Origin::Trades(file), Some(into)) => {
                let feed = Feed::open(file, draw, batch)?;
                let stop = Arc::clone(&stop);
                Some(thread::spawn(move || feed.pour(into, &stop)))
            }
            _ => None,
        };
        Ok(Load {
            child,
            log,
            stop,
            feeder,
        })
    }

    /// An error when it has ended by itself.
    ///
    /// # Errors
    /// With the end of its output.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let end = crate::process::end_of_log(&self.log);
            bail!("the load ended by itself with {status}; {end}");
        }
        Ok(())
    }

    /// Ends it, and waits until everything is acknowledged.
    ///
    /// # Errors
    /// When a record was given up, or its last words cannot be understood.
    pub fn finish(mut self) -> anyhow::Result<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        match self.feeder.take() {
            // The end of its input ends it.
            Some(feeder) => drop(feeder.join()),
            None => interrupt(&self.child)?,
        }
        let status = self.child.wait()?;
        let end = crate::process::end_of_log(&self.log);
        let last = end.lines().rev().find(|line| line.starts_with('{'));
        let sent: Option<Sent> = last.and_then(|line| serde_json::from_str(line).ok());
        match sent {
            Some(sent) if status.success() => Ok(sent),
            _ => bail!("the load ended with {status}; {end}"),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // What has ended already cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(command: &mut Command, log: &Path) -> anyhow::Result<Child> {
    let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command
        .stdin(Stdio::piped())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()
        .context("cannot run `setpriv`; it is in the package util-linux")
}

fn interrupt(child: &Child) -> anyhow::Result<()> {
    let found = crate::process::Found {
        pid: child.id(),
        state: crate::process::State::Running,
    };
    crate::process::signal(found, rustix::process::Signal::TERM)
}

/// Trades on their way to the producer.
struct Feed {
    lines: Box<dyn Iterator<Item = String> + Send>,
    /// Added to a trade's time.
    shift_ms: i64,
    first_ms: i64,
    draw: Draw,
}

impl Feed {
    /// From a moment of the trading day on.
    fn open(file: &Path, draw: Draw, batch: u64) -> anyhow::Result<Feed> {
        const HOURS_MS: u64 = 4 * 3_600_000;
        let raw = File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let lines = BufReader::new(MultiGzDecoder::new(BufReader::new(raw))).lines();
        let mut lines = lines.map_while(Result::ok).peekable();
        let first = lines.peek().and_then(|line| happened_ms(line));
        let first = first.with_context(|| format!("{} holds no trades", file.display()))?;
        let into_day = i64::try_from(draw.within(0..HOURS_MS, "time of day", batch))?;
        let first_ms = first + OPENING_MS + into_day;
        let lines = lines.skip_while(move |line| happened_ms(line).is_none_or(|at| at < first_ms));
        Ok(Feed {
            lines: Box::new(lines),
            shift_ms: now_ms() - HEAD_START_MS - first_ms,
            first_ms,
            draw,
        })
    }

    /// Writes trades when they are due, until it is stopped or nobody reads.
    fn pour(self, into: ChildStdin, stop: &AtomicBool) {
        let mut into = BufWriter::new(into);
        let began = Instant::now();
        let mut late: BinaryHeap<Reverse<(i64, String)>> = BinaryHeap::new();
        for (number, line) in (0_u64..).zip(self.lines) {
            let Some(at_ms) = happened_ms(&line) else {
                continue;
            };
            let Some(line) = moved(&line, at_ms + self.shift_ms) else {
                continue;
            };
            if self.draw.percent(LATE_PERCENT, "late", number) {
                let by = self.draw.within(1..LATE_MS_MAX, "late by", number);
                late.push(Reverse((at_ms + i64::try_from(by).unwrap_or(0), line)));
                continue;
            }
            let since_ms = (at_ms - self.first_ms).max(0).unsigned_abs();
            wait_until(
                began + Duration::from_millis(since_ms) / SPEED,
                &mut into,
                stop,
            );
            let mut due = vec![line];
            while let Some(Reverse((when, _))) = late.peek()
                && *when <= at_ms
                && let Some(Reverse((_, line))) = late.pop()
            {
                due.push(line);
            }
            for line in due {
                if writeln!(into, "{line}").is_err() {
                    return;
                }
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

fn wait_until(due: Instant, into: &mut impl Write, stop: &AtomicBool) {
    const STEP: Duration = Duration::from_millis(50);
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) || stop.load(Ordering::Relaxed) {
            return;
        }
        // Who reads does not wait for a full buffer. A reader that is gone is noticed by the writer.
        let _ = into.flush();
        thread::sleep(left.min(STEP));
    }
}

const FIELD: &str = "\"timestamp\":";

/// When the trade happened, Unix milliseconds.
fn happened_ms(line: &str) -> Option<i64> {
    let (_, rest) = line.split_once(FIELD)?;
    let number = rest.split([',', '}']).next()?.trim();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction = format!("{fraction:0<3}");
    let fraction: i64 = fraction.get(..3)?.parse().ok()?;
    Some(whole.parse::<i64>().ok()? * 1_000 + fraction)
}

/// The trade, at another time.
fn moved(line: &str, at_ms: i64) -> Option<String> {
    let (before, rest) = line.split_once(FIELD)?;
    let end = rest.find([',', '}'])?;
    let (whole, fraction) = (at_ms.div_euclid(1_000), at_ms.rem_euclid(1_000));
    Some(format!(
        "{before}{FIELD}{whole}.{fraction:03}{}",
        &rest[end..]
    ))
}

/// Unix time, milliseconds.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or_default().as_millis();
    i64::try_from(since).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"event_id":"SPY-1","ticker":"SPY","price":167.41,"timestamp":1381132800.4,"source":"P"}"#;

    #[test]
    fn a_trade_is_moved_in_time_and_is_else_as_it_was() {
        assert_eq!(happened_ms(LINE), Some(1_381_132_800_400));
        let moved = moved(LINE, 1_700_000_000_007).expect("it has a time");
        assert_eq!(moved, LINE.replace("1381132800.4", "1700000000.007"));
        assert_eq!(happened_ms(&moved), Some(1_700_000_000_007));
        assert_eq!(happened_ms(r#"{"ticker":"SPY"}"#), None);
    }

    #[test]
    fn a_file_without_trades_is_an_error() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("empty.gz");
        std::fs::write(&file, b"")?;
        let error = Feed::open(&file, Draw::new(1), 0)
            .err()
            .context("it is empty")?;
        assert!(error.to_string().contains("no trades"), "{error}");
        let error = Feed::open(Path::new("/none"), Draw::new(1), 0)
            .err()
            .context("it is not there")?;
        assert!(error.to_string().contains("/none"), "{error}");
        Ok(())
    }

    #[test]
    fn a_load_that_ends_by_itself_is_an_error_with_its_last_words() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let config = Path::new("none.toml");
        let mut load = Load::start(
            Path::new("false"),
            config,
            folder.path(),
            &Origin::Generated,
            Draw::new(1),
            0,
        )?;
        let mut error = None;
        crate::process::wait_until(Duration::from_secs(60), || {
            error = load.check().err();
            Ok(error.is_some())
        })?;
        let error = error.context("it has ended")?.to_string();
        assert!(error.contains("ended by itself"), "{error}");
        assert!(load.finish().is_err());
        Ok(())
    }
}
