//! Everything that is wrong with a configuration file, at once.

use std::fmt;

/// One thing that is wrong with a configuration file. Keys are dotted: `kafka.group_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// The file is not TOML.
    Syntax {
        /// Line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A required key is absent.
    Missing {
        /// The key.
        key: String,
        /// What it may be.
        allowed: String,
    },
    /// A value is not allowed.
    Wrong {
        /// The key.
        key: String,
        /// The value, as TOML.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// There is no such key.
    Unknown {
        /// The key.
        key: String,
        /// A known key that looks like it.
        near: Option<String>,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Syntax { line, message } => write!(f, "line {line}: {message}"),
            ConfigError::Missing { key, allowed } => {
                write!(f, "{key} is missing: it must be {allowed}")
            }
            ConfigError::Wrong {
                key,
                value,
                allowed,
            } => {
                write!(f, "{key} = {value}: it must be {allowed}")
            }
            ConfigError::Unknown {
                key,
                near: Some(near),
            } => {
                write!(f, "{key}: there is no such key; did you mean {near}?")
            }
            ConfigError::Unknown { key, near: None } => {
                write!(f, "{key}: there is no such key; remove it")
            }
        }
    }
}

/// All errors of a configuration file; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        let noun = if count == 1 { "error" } else { "errors" };
        write!(f, "the configuration has {count} {noun}:")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for ConfigErrors {}
