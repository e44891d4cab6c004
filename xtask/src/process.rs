//! Processes that outlive the task that started them (Linux).
//!
//! Comes in: a command. Goes out: its process, found again later by what stands in its command line,
//! so that neither a crash of the task nor a reused process id can lead to the wrong one.
//! Never here: what the processes are.

use anyhow::Context;
use rustix::process::{Pid, Signal, WaitOptions};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How a process is told from all others: each of these words is a whole argument in its command
/// line, and `program` is the name of its executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The file name of the program, without its folder.
    pub program: String,
    /// Whole arguments, in any order.
    pub words: Vec<String>,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs, or waits.
    Running,
    /// SIGSTOP holds it.
    Paused,
}

/// A process that bears its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub pid: u32,
    /// What it does.
    pub state: State,
}

/// Starts `program` in a session of its own, without a terminal, its output appended to `log`.
/// The answer is its process id.
///
/// # Errors
/// When the log cannot be opened, or `setsid` (package util-linux) cannot be run.
pub fn start_detached(command: &Command, log: &Path) -> anyhow::Result<u32> {
    let open = || File::options().create(true).append(true).open(log);
    let log = open().with_context(|| format!("cannot write {}", log.display()))?;
    // `setsid PROGRAM` replaces itself by the program: the process id stays.
    let mut detached = Command::new("setsid");
    detached
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    if let Some(folder) = command.get_current_dir() {
        detached.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => detached.env(name, value),
            None => detached.env_remove(name),
        };
    }
    let child = detached
        .spawn()
        .context("cannot run `setsid`; it is in the package util-linux")?;
    Ok(child.id())
}

/// The process that bears `mark`, if there is one.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn find(mark: &Mark) -> anyhow::Result<Option<Found>> {
    let processes = fs::read_dir("/proc")
        .context("cannot read /proc; starting servers from here works on Linux only")?;
    for entry in processes.filter_map(Result::ok) {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A process that ends while it is looked at is not there.
        let Ok(command_line) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        if bears(&command_line, mark)
            && let Some(state) = state_of(pid)
        {
            return Ok(Some(Found { pid, state }));
        }
    }
    Ok(None)
}

/// True when a command line (words that end in a zero byte) bears the mark.
fn bears(command_line: &[u8], mark: &Mark) -> bool {
    let words: Vec<&[u8]> = command_line.split(|byte| *byte == 0).collect();
    let program = words[0].rsplit(|byte| *byte == b'/').next();
    program == Some(mark.program.as_bytes())
        && mark
            .words
            .iter()
            .all(|word| words[1..].contains(&word.as_bytes()))
}

/// `None` when the process has ended (a zombie has too; it is buried if it is a child of this one).
fn state_of(pid: u32) -> Option<State> {
    bury(pid);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    state_in(&stat)
}

/// Reads the state out of `/proc/PID/stat`, where it follows the name in parentheses.
fn state_in(stat: &str) -> Option<State> {
    let (_, rest) = stat.rsplit_once(") ")?;
    match rest.chars().next()? {
        'Z' | 'X' | 'x' => None,
        'T' | 't' => Some(State::Paused),
        _ => Some(State::Running),
    }
}

/// Takes the exit status of a child that has ended, so that it does not stay as a zombie.
fn bury(pid: u32) {
    if let Some(pid) = to_pid(pid) {
        // It fails for processes that are not children of this one; they are init's to bury.
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// True when a process of that id is there and has not ended.
#[must_use]
pub fn exists(pid: u32) -> bool {
    state_of(pid).is_some()
}

/// Sends a signal.
///
/// # Errors
/// When the process is gone, or belongs to another user.
pub fn signal(found: Found, signal: Signal) -> anyhow::Result<()> {
    let pid = to_pid(found.pid).context("0 is no process id")?;
    rustix::process::kill_process(pid, signal)
        .with_context(|| format!("cannot send a signal to process {}", found.pid))
}

fn to_pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Resident memory of a process in KiB, without pages that are swapped out.
#[must_use]
pub fn resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Asks `is_so` again and again until it says yes; false when `limit` went by first.
///
/// # Errors
/// The first error of `is_so`.
#[allow(
    clippy::disallowed_methods,
    reason = "waits for real processes; nothing here is simulated"
)]
pub fn wait_until(
    limit: Duration,
    mut is_so: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    let start = Instant::now();
    loop {
        if is_so()? {
            return Ok(true);
        }
        if start.elapsed() > limit {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Kills a process that bears `mark` with SIGKILL and waits until it is gone. False when there was
/// none.
///
/// # Errors
/// When it cannot be killed, or is still there after 30 s.
pub fn kill(mark: &Mark) -> anyhow::Result<bool> {
    let Some(found) = find(mark)? else {
        return Ok(false);
    };
    if let Err(e) = signal(found, Signal::KILL) {
        // It may have ended by itself between the two looks.
        return if find(mark)?.is_none() {
            Ok(true)
        } else {
            Err(e)
        };
    }
    wait_gone(mark, Duration::from_secs(30))?;
    Ok(true)
}

/// Waits until no process bears `mark`.
///
/// # Errors
/// When one is still there after `limit`.
pub fn wait_gone(mark: &Mark, limit: Duration) -> anyhow::Result<()> {
    if wait_until(limit, || Ok(find(mark)?.is_none()))? {
        return Ok(());
    }
    let pid = find(mark)?.map_or(0, |found| found.pid);
    anyhow::bail!("process {pid} is still there; end it by hand: kill -9 {pid}")
}

/// The end of a log, as part of a message.
#[must_use]
pub fn end_of_log(log: &Path) -> String {
    const LINES: usize = 15;
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
    format!("{} ends with:\n{end}", log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(program: &str, words: &[&str]) -> Mark {
        Mark {
            program: program.to_owned(),
            words: words.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    #[test]
    fn a_mark_needs_the_program_and_every_word_as_a_whole_argument() {
        let line = b"/usr/bin/java\0-Xmx1m\0kafka.Kafka\0/a/broker-1/server.properties\0";
        let found = mark("java", &["kafka.Kafka", "/a/broker-1/server.properties"]);
        assert!(bears(line, &found));
        assert!(!bears(line, &mark("java", &["/a/broker-1"])));
        assert!(!bears(
            line,
            &mark("vim", &["/a/broker-1/server.properties"])
        ));
        assert!(!bears(b"", &found));
    }

    #[test]
    fn the_state_is_read_behind_a_name_with_parentheses() {
        assert_eq!(state_in("1 (a) Z (b)) S 0"), Some(State::Running));
        assert_eq!(state_in("1 (java) T 0"), Some(State::Paused));
        assert_eq!(state_in("1 (java) Z 0"), None);
    }

    #[test]
    fn a_detached_process_is_found_paused_and_killed() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        // The number makes the command line this test's own.
        let seconds = "599.0625";
        let mut command = Command::new("sleep");
        command.arg(seconds);
        let mark = mark("sleep", &[seconds]);
        let pid = start_detached(&command, &folder.path().join("log"))?;
        let limit = Duration::from_secs(30);
        assert!(wait_until(limit, || Ok(find(&mark)?.is_some()))?);
        let found = find(&mark)?.context("it runs")?;
        assert_eq!((found.pid, found.state), (pid, State::Running));
        signal(found, Signal::STOP)?;
        let is_paused = || Ok(find(&mark)?.is_some_and(|found| found.state == State::Paused));
        assert!(wait_until(limit, is_paused)?);
        assert!(kill(&mark)?);
        assert_eq!(find(&mark)?, None);
        assert!(!kill(&mark)?);
        Ok(())
    }

    #[test]
    fn the_end_of_a_log_is_its_last_lines() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("log");
        let text: String = (0..100).map(|n| format!("line {n}\n")).collect();
        fs::write(&path, text)?;
        let end = end_of_log(&path);
        assert!(end.ends_with("line 98\nline 99"), "{end}");
        assert!(!end.contains("line 84\n"), "{end}");
        Ok(())
    }
}
