//! The processors' processes.
//!
//! Comes in: a binary and its configuration. Goes out: processes with ordinals, signals to them, and
//! how they ended. Here is also the supervisor of production: what ends with status 1 is started again.
//! Never here: when a fault comes.

use crate::process::{self, Found, State, wait_until};
use anyhow::{Context, bail};
use rustix::process::Signal;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How long a processor may take to drain, snapshot, commit and leave.
const DRAIN_LIMIT: Duration = Duration::from_secs(90);
/// How long a signal may take to show.
const SIGNAL_LIMIT: Duration = Duration::from_secs(30);
/// Pause of a supervisor before it starts a failed process again.
const SUPERVISOR_PAUSE: Duration = Duration::from_millis(500);

/// What a processor says that was stopped in the middle of a takeover.
const UNDRAINED: &str = "stopped before its snapshot was committed";

/// How the processors are started.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The binary.
    pub program: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    /// Environment of the processes: credentials.
    pub environment: Vec<(String, String)>,
    /// Where their logs are.
    pub folder: PathBuf,
}

impl Recipe {
    /// The log of the processor with this ordinal, through all its starts.
    #[must_use]
    pub fn log(&self, ordinal: u32) -> PathBuf {
        self.folder.join(format!("processor-{ordinal}.log"))
    }

    fn start(&self, ordinal: u32) -> anyhow::Result<Child> {
        let path = self.log(ordinal);
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot write {}", path.display()))?;
        let ordinal = ordinal.to_string();
        let config = self.config.display().to_string();
        bound_to_this_process(&self.program)
            .args(["run", "--config", &config, "--ordinal", &ordinal])
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run `setpriv`; it is in the package util-linux")
    }
}

/// A command whose process is killed when this one ends, however it ends: `setpriv` replaces itself by
/// the program, so that the process id stays.
#[must_use]
pub fn bound_to_this_process(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A failed process that was started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revival {
    /// Its ordinal.
    pub ordinal: u32,
    /// The last line of its log.
    pub last_words: String,
}

#[derive(Debug)]
struct Member {
    ordinal: u32,
    child: Child,
}

/// All processors of a batch.
#[derive(Debug)]
pub struct Fleet {
    recipe: Recipe,
    members: Vec<Member>,
}

impl Fleet {
    /// Nobody yet.
    #[must_use]
    pub fn new(recipe: Recipe) -> Fleet {
        Fleet {
            recipe,
            members: Vec::new(),
        }
    }

    /// Starts the processor with this ordinal.
    ///
    /// # Errors
    /// When it cannot be started.
    ///
    /// # Panics
    /// When it is there already: two of one ordinal are no fault of this kind.
    pub fn start(&mut self, ordinal: u32) -> anyhow::Result<()> {
        let is_new = self.members.iter().all(|m| m.ordinal != ordinal);
        assert!(is_new, "processor {ordinal} is there already");
        let child = self.recipe.start(ordinal)?;
        self.members.push(Member { ordinal, child });
        Ok(())
    }

    /// How many processors there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.members.len()
    }

    fn member(&mut self, ordinal: u32) -> anyhow::Result<&mut Member> {
        let mut members = self.members.iter_mut();
        let member = members.find(|member| member.ordinal == ordinal);
        member.with_context(|| format!("there is no processor {ordinal}"))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When there is no such processor, or it has ended.
    pub fn signal(&mut self, ordinal: u32, signal: Signal) -> anyhow::Result<()> {
        let pid = self.member(ordinal)?.child.id();
        let state = State::Running;
        process::signal(Found { pid, state }, signal)
    }

    /// Kills a processor (SIGKILL) and waits for its end. True when the signal is what ended it.
    ///
    /// # Errors
    /// When there is no such processor.
    pub fn kill(&mut self, ordinal: u32) -> anyhow::Result<bool> {
        let member = self.member(ordinal)?;
        // It may have ended by itself just now: then the status tells.
        let _ = member.child.kill();
        let status = member.child.wait()?;
        self.members.retain(|member| member.ordinal != ordinal);
        Ok(status.signal() == Some(Signal::KILL.as_raw()))
    }

    /// Holds a processor (SIGSTOP) and waits until it stands.
    ///
    /// # Errors
    /// When there is no such processor, or it does not stop.
    pub fn pause(&mut self, ordinal: u32) -> anyhow::Result<()> {
        self.signal(ordinal, Signal::STOP)?;
        let pid = self.member(ordinal)?.child.id();
        let stands = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            Ok(stat
                .rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('T')))
        };
        if !wait_until(SIGNAL_LIMIT, stands)? {
            bail!("processor {ordinal} got SIGSTOP and does not stand");
        }
        Ok(())
    }

    /// Ends a processor by SIGTERM. False when it says that it could not drain, because it was just
    /// being given partitions: then its successor replays, and nothing else.
    ///
    /// # Errors
    /// When it ends otherwise than with status 0, or not in time.
    pub fn stop(&mut self, ordinal: u32) -> anyhow::Result<bool> {
        self.signal(ordinal, Signal::TERM)?;
        let status = self.wait_for_end(ordinal)?;
        let words = self.end_of_log(ordinal);
        let last = words.lines().last().unwrap_or_default();
        if status.code() == Some(1) && last.contains(UNDRAINED) {
            return Ok(false);
        }
        if !status.success() {
            bail!("processor {ordinal} answered SIGTERM with {status}; {words}");
        }
        Ok(true)
    }

    fn wait_for_end(&mut self, ordinal: u32) -> anyhow::Result<ExitStatus> {
        let mut ended = None;
        let member = self.member(ordinal)?;
        wait_until(DRAIN_LIMIT, || {
            ended = member.child.try_wait()?;
            Ok(ended.is_some())
        })?;
        let Some(status) = ended else {
            let limit = DRAIN_LIMIT.as_secs();
            bail!(
                "processor {ordinal} got SIGTERM and runs after {limit} s; {}",
                self.end_of_log(ordinal)
            );
        };
        self.members.retain(|member| member.ordinal != ordinal);
        Ok(status)
    }

    /// Ends all processors by SIGTERM, one after the other. The answer is how many could not drain.
    ///
    /// # Errors
    /// As for [`Fleet::stop`].
    pub fn stop_all(&mut self) -> anyhow::Result<u64> {
        let ordinals: Vec<u32> = self.members.iter().map(|m| m.ordinal).collect();
        let mut undrained = 0;
        for ordinal in ordinals {
            undrained += u64::from(!self.stop(ordinal)?);
        }
        Ok(undrained)
    }

    /// Starts again what ended with status 1, as a supervisor does.
    ///
    /// # Errors
    /// When a processor ended in another way: by a refusal, a panic or without a reason.
    pub fn supervise(&mut self) -> anyhow::Result<Vec<Revival>> {
        let mut revivals = Vec::new();
        let mut ended = Vec::new();
        for member in &mut self.members {
            if let Some(status) = member.child.try_wait()? {
                ended.push((member.ordinal, status));
            }
        }
        for (ordinal, status) in ended {
            self.members.retain(|member| member.ordinal != ordinal);
            let words = self.end_of_log(ordinal);
            if status.code() != Some(1) || words.contains("panicked") {
                bail!("processor {ordinal} ended by itself with {status}; {words}");
            }
            let last_words = words.lines().last().unwrap_or_default().to_owned();
            revivals.push(Revival {
                ordinal,
                last_words,
            });
            std::thread::sleep(SUPERVISOR_PAUSE);
            self.start(ordinal)?;
        }
        Ok(revivals)
    }

    fn end_of_log(&self, ordinal: u32) -> String {
        process::end_of_log(&self.recipe.log(ordinal))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for member in &mut self.members {
            // What has ended already cannot be killed.
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A fleet of shell scripts.
    fn fleet(folder: &Path, script: &str) -> anyhow::Result<Fleet> {
        let program = folder.join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n"))?;
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755))?;
        Ok(Fleet::new(Recipe {
            program,
            config: folder.join("none.toml"),
            environment: Vec::new(),
            folder: folder.to_owned(),
        }))
    }

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn a_processor_that_failed_is_started_again_and_one_that_refused_is_not() -> anyhow::Result<()>
    {
        let folder = tempfile::tempdir()?;
        let script = "cd $(dirname $0); echo why; test -e again && exit 3; touch again; exit 1";
        let mut failing = fleet(folder.path(), script)?;
        failing.start(4)?;
        let mut revivals = Vec::new();
        let mut refusal = None;
        wait_until(LIMIT, || {
            match failing.supervise() {
                Ok(more) => revivals.extend(more),
                Err(error) => refusal = Some(error.to_string()),
            }
            Ok(refusal.is_some())
        })?;
        assert_eq!(
            revivals,
            [Revival {
                ordinal: 4,
                last_words: "why".to_owned()
            }]
        );
        let refusal = refusal.context("it was found")?;
        assert!(
            refusal.contains("processor 4") && refusal.contains("exit status: 3"),
            "{refusal}"
        );
        Ok(())
    }

    #[test]
    fn processors_are_paused_killed_and_stopped() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let script =
            "trap 'exit 0' TERM; touch $(dirname $0)/ready-$5; while true; do sleep 0.05; done";
        let mut fleet = fleet(folder.path(), script)?;
        fleet.start(0)?;
        fleet.start(1)?;
        fleet.pause(0)?;
        assert!(fleet.kill(0)?);
        assert!(fleet.signal(0, Signal::CONT).is_err());
        let is_ready = || Ok(folder.path().join("ready-1").exists());
        assert!(wait_until(LIMIT, is_ready)?);
        fleet.stop_all()?;
        assert!(fleet.members.is_empty());
        Ok(())
    }
}
