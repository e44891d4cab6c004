//! Where state and checkpoints are kept: sections `[state]` and `[checkpoint]`.

use crate::config::checks::{DAY_MS, HOUR_MS, is_text};
use crate::config::reader::Section;

/// What keeps the local state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateKind {
    /// RocksDB, in a local directory: state may be larger than memory.
    RocksDb,
    /// Memory: for state that fits, and for trials.
    Memory,
}

/// Section `[state]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateConfig {
    /// What keeps it.
    pub store: StateKind,
    /// Local directory; each start makes a folder of its own in it.
    pub directory: String,
    /// Memory for the event identities of one worker, over all of its partitions, bytes. Those of the
    /// oldest windows are moved into the store beyond it; those of each partition's newest window stay.
    pub memory_limit_bytes: usize,
}

/// How S3 encrypts checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// As the bucket's own default says.
    BucketDefault,
    /// SSE-S3.
    Aes256,
    /// SSE-KMS, under a key.
    Kms,
}

/// Section `[checkpoint.s3]`. Credentials come from the environment: `AWS_ACCESS_KEY_ID`,
/// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, or the role of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Config {
    /// URL of another server than AWS's own; `None` takes AWS's.
    pub endpoint: Option<String>,
    /// Region; `None` takes `AWS_REGION` or `AWS_DEFAULT_REGION`.
    pub region: Option<String>,
    /// Plain HTTP is allowed.
    pub allow_http: bool,
    /// Encryption at rest.
    pub encryption: Encryption,
    /// Id or ARN of the KMS key; `None` takes AWS's own key for S3.
    pub kms_key_id: Option<String>,
    /// KMS is asked once a bucket instead of once an object.
    pub bucket_key: bool,
}

/// Section `[checkpoint]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointConfig {
    /// Object store: `s3://…`, `file:///…` or `memory:///`.
    pub url: String,
    /// Folder inside it.
    pub prefix: String,
    /// Time between snapshots of a partition.
    pub interval_ms: u64,
    /// Newest snapshots kept of each partition, however old they are.
    pub retain_count: usize,
    /// Age until which older ones are kept too, about one a 64th part of it; 0 keeps none for its age.
    pub retain_ms: u64,
    /// Age below which no unreachable file is removed.
    pub gc_grace_ms: u64,
    /// Checkpoints between two removals of unreachable files.
    pub gc_every: u64,
    /// What S3 needs beside the URL.
    pub s3: S3Config,
}

pub(super) fn state(mut section: Section<'_>) -> StateConfig {
    let config = StateConfig {
        store: section.choice(
            "store",
            &[
                ("rocksdb", StateKind::RocksDb),
                ("memory", StateKind::Memory),
            ],
        ),
        directory: section.text("directory", Some("state"), "a path", is_text),
        memory_limit_bytes: section.integer("memory_limit_bytes", 256 << 20, 0..=1 << 44) as usize,
    };
    section.finish();
    config
}

pub(super) fn checkpoint(mut section: Section<'_>) -> CheckpointConfig {
    let url = section.text(
        "url",
        Some("memory:///"),
        "\"s3://bucket\", \"file:///folder\" or \"memory:///\"",
        |url| {
            let with_rest = |scheme| url.strip_prefix(scheme).is_some_and(is_text);
            url == "memory:///" || with_rest("s3://") || with_rest("file:///")
        },
    );
    let config = CheckpointConfig {
        url,
        prefix: section.text(
            "prefix",
            Some("checkpoints"),
            "a folder name without '/' at its start or end",
            |prefix| is_text(prefix) && !prefix.starts_with('/') && !prefix.ends_with('/'),
        ),
        interval_ms: section.duration_ms("interval_ms", 10_000, 1..=DAY_MS),
        retain_count: section.integer("retain_count", 3, 1..=1_000) as usize,
        retain_ms: section.duration_ms("retain_ms", 0, 0..=365 * DAY_MS),
        gc_grace_ms: section.duration_ms("gc_grace_ms", HOUR_MS, 1..=365 * DAY_MS),
        gc_every: section.integer("gc_every", 10, 1..=1_000_000) as u64,
        s3: s3(section.section("s3")),
    };
    section.finish();
    config
}

fn s3(mut section: Section<'_>) -> S3Config {
    let optional = |text: String| (!text.is_empty()).then_some(text);
    let is_url = |text: &str| {
        let with_rest = |scheme| text.strip_prefix(scheme).is_some_and(is_text);
        text.is_empty() || with_rest("https://") || with_rest("http://")
    };
    let config = S3Config {
        endpoint: optional(section.text(
            "endpoint",
            Some(""),
            "\"https://host:port\", or \"\" for AWS's own",
            is_url,
        )),
        region: optional(section.text("region", Some(""), "a region, or \"\"", |_| true)),
        allow_http: section.truth("allow_http", false),
        encryption: section.choice(
            "sse",
            &[
                ("none", Encryption::BucketDefault),
                ("AES256", Encryption::Aes256),
                ("aws:kms", Encryption::Kms),
            ],
        ),
        kms_key_id: optional(section.text("kms_key_id", Some(""), "a key id or ARN", |_| true)),
        bucket_key: section.truth("bucket_key", false),
    };
    if config.encryption != Encryption::Kms {
        let allowed = "set only with sse = \"aws:kms\"";
        if let Some(key) = &config.kms_key_id {
            section.wrong("kms_key_id", format!("{key:?}"), allowed);
        }
        if config.bucket_key {
            section.wrong("bucket_key", true, allowed);
        }
    }
    let is_plain = |url: &String| url.starts_with("http://");
    if config.endpoint.as_ref().is_some_and(is_plain) && !config.allow_http {
        let allowed = "true, since the endpoint begins with http://";
        section.wrong("allow_http", false, allowed);
    }
    section.finish();
    config
}
