//! Names of the moments at which a process can die.

use std::fmt;
use std::str::FromStr;

/// The `call`-th I/O of the `start`-th process of a worker, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId {
    /// Number of the worker.
    pub worker: u32,
    /// Which of its starts.
    pub start: u64,
    /// Which call of that process.
    pub call: u64,
}

/// A moment of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// It is not made.
    Before,
    /// Something has left the process for the n-th time since it was made, and it has not returned.
    Unknown(u32),
    /// It has returned, and the process does not get to know what.
    After,
}

/// Where a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kill {
    /// The call.
    pub call: CallId,
    /// The moment.
    pub moment: Moment,
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker-{}/{}/{}", self.worker, self.start, self.call)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Before => f.write_str("before"),
            Moment::Unknown(nth) => write!(f, "unknown-{nth}"),
            Moment::After => f.write_str("after"),
        }
    }
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.call, self.moment)
    }
}

/// A text that names no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no point: write worker-W/START/CALL:MOMENT, where MOMENT is before, after, or unknown-N, \
     for example worker-0/1/17:unknown-1"
)]
pub struct MalformedKill(String);

impl FromStr for Kill {
    type Err = MalformedKill;

    fn from_str(text: &str) -> Result<Kill, MalformedKill> {
        parse(text).ok_or_else(|| MalformedKill(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Kill> {
    let (call, moment) = text.split_once(':')?;
    let mut numbers = call.strip_prefix("worker-")?.split('/');
    let call = CallId {
        worker: numbers.next()?.parse().ok()?,
        start: numbers.next()?.parse().ok()?,
        call: numbers.next()?.parse().ok()?,
    };
    let moment = match moment {
        "before" => Moment::Before,
        "after" => Moment::After,
        unknown => Moment::Unknown(unknown.strip_prefix("unknown-")?.parse().ok()?),
    };
    numbers.next().is_none().then_some(Kill { call, moment })
}

#[cfg(test)]
mod tests {
    use super::Kill;

    #[test]
    fn points_read_back_as_they_are_written() {
        for text in [
            "worker-0/1/17:before",
            "worker-3/2/1:unknown-12",
            "worker-1/10/5:after",
        ] {
            let kill: Kill = text.parse().expect("is a point");
            assert_eq!(kill.to_string(), text);
        }
        for wrong in [
            "",
            "worker-0/1:after",
            "worker-0/1/2/3:after",
            "worker-0/1/2:sent",
        ] {
            assert!(wrong.parse::<Kill>().is_err(), "{wrong}");
        }
    }
}
