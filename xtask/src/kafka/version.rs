//! Versions of Apache Kafka: which are pinned, and what each needs.

use anyhow::{Context, bail};
use std::fmt;
use std::str::FromStr;

/// The version that starts by default, and that `4` stands for.
pub const NEWEST: &str = "4.4.0";
/// The last line of 3.x; `3.9` and `3` stand for it.
pub const NEWEST_3: &str = "3.9.2";

/// A released version, like 4.4.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 3 or 4.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The third number.
    pub patch: u32,
}

impl Version {
    /// The oldest Java that its brokers run on.
    #[must_use]
    pub fn java_min(self) -> u32 {
        if self.major >= 4 { 17 } else { 11 }
    }

    /// What its log calls go to: group, artifact and version of the binding for SLF4J 1.7.
    #[must_use]
    pub fn log_binding(self) -> [&'static str; 3] {
        if self.major >= 4 {
            ["org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.5"]
        } else {
            ["org.slf4j", "slf4j-reload4j", "1.7.36"]
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let text = match text {
            "4" => NEWEST,
            "3" | "3.9" => NEWEST_3,
            other => other,
        };
        let help = || {
            format!(
                "`{text}` is no version of Apache Kafka that can be started; take {NEWEST}, \
                 {NEWEST_3}, or another release from 3.5.0 on, in three numbers"
            )
        };
        let numbers: Vec<u32> = text
            .split('.')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(help)?;
        let [major, minor, patch] = numbers[..] else {
            bail!(help());
        };
        if !matches!((major, minor), (3, 5..) | (4, _)) {
            bail!(help());
        }
        Ok(Self {
            major,
            minor,
            patch,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_versions_have_short_names() -> anyhow::Result<()> {
        assert_eq!("4".parse::<Version>()?.to_string(), NEWEST);
        assert_eq!("3.9".parse::<Version>()?.to_string(), NEWEST_3);
        assert_eq!("4.0.1".parse::<Version>()?.to_string(), "4.0.1");
        Ok(())
    }

    #[test]
    fn what_is_no_version_names_versions_that_are() {
        for text in [
            "", "4.4", "4.x.1", "2.8.0", "3.4.0", "5.0.0", "4.4.0.1", "-4.0.0",
        ] {
            let error = text.parse::<Version>().unwrap_err().to_string();
            assert!(
                error.contains(NEWEST) && error.contains(NEWEST_3),
                "{error}"
            );
        }
    }
}
