//! The object store of checkpoints, by its URL: S3, a local folder, or memory.
//!
//! Comes in: section `[checkpoint]`, and for S3 the credentials of the environment. Goes out: an
//! [`ObjectStore`] that creates objects conditionally.
//! Never here: what lies in it.
//!
//! What it returns must be used inside a tokio runtime with time and I/O enabled (a thread that has
//! entered one by its handle will do).

use crate::config::{CheckpointConfig, Encryption, S3Config};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

/// The worker tries again itself, and must know soon that it has to.
const RETRIES_MAX: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The object store cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// The local folder.
    #[error(
        "checkpoint.url = \"{url}\": {cause}; name an absolute folder that this user may write, as \
         \"file:///var/lib/tickproof\""
    )]
    Folder {
        /// The URL.
        url: String,
        /// What is wrong.
        cause: String,
    },
    /// A bucket with more behind it.
    #[error(
        "checkpoint.url = \"{0}\": name the bucket alone, as \"s3://bucket\", and put the folder into \
         checkpoint.prefix"
    )]
    BucketOnly(String),
    /// Anything else of S3.
    #[error("checkpoint.url = \"{url}\": {cause}; see [checkpoint.s3] and the AWS_* variables")]
    S3 {
        /// The URL.
        url: String,
        /// What is wrong.
        cause: object_store::Error,
    },
    /// No known scheme.
    #[error(
        "checkpoint.url = \"{0}\": it must be \"s3://bucket\", \"file:///folder\" or \"memory:///\""
    )]
    Scheme(String),
}

/// Where the credentials for S3 come from.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// The `AWS_*` variables, or the role of the machine.
    Environment,
    /// The caller.
    Given {
        /// Access key id.
        access_key_id: String,
        /// Secret access key.
        secret_access_key: String,
    },
}

/// Opens the object store that `checkpoint.url` names. Nothing is asked of it yet.
///
/// # Errors
/// [`ObjectsError`].
pub fn open(config: &CheckpointConfig) -> Result<Arc<dyn ObjectStore>, ObjectsError> {
    open_with(config, &Credentials::Environment)
}

/// As [`open`], with credentials of the caller's choice.
///
/// # Errors
/// [`ObjectsError`].
pub fn open_with(
    config: &CheckpointConfig,
    credentials: &Credentials,
) -> Result<Arc<dyn ObjectStore>, ObjectsError> {
    let url = &config.url;
    if url == "memory:///" {
        return Ok(Arc::new(InMemory::new()));
    }
    if let Some(folder) = url.strip_prefix("file://") {
        return Ok(Arc::new(local(url, folder)?));
    }
    match url.strip_prefix("s3://") {
        Some(bucket) if bucket.trim_end_matches('/').contains('/') => {
            Err(ObjectsError::BucketOnly(url.clone()))
        }
        Some(bucket) => {
            let bucket = bucket.trim_end_matches('/');
            Ok(Arc::new(s3(url, bucket, &config.s3, credentials)?))
        }
        None => Err(ObjectsError::Scheme(url.clone())),
    }
}

fn local(url: &str, folder: &str) -> Result<LocalFileSystem, ObjectsError> {
    let failed = |cause: String| ObjectsError::Folder {
        url: url.to_owned(),
        cause,
    };
    fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
    let store = LocalFileSystem::new_with_prefix(folder);
    // A commit record names what is here, so it must outlive the machine's power.
    store
        .map(|store| store.with_fsync(true))
        .map_err(|error| failed(error.to_string()))
}

fn s3(
    url: &str,
    bucket: &str,
    config: &S3Config,
    credentials: &Credentials,
) -> Result<AmazonS3, ObjectsError> {
    let client = ClientOptions::new()
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_allow_http(config.allow_http);
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client)
        // Two owners never write one manifest.
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIMEOUT,
        });
    if let Credentials::Given {
        access_key_id,
        secret_access_key,
    } = credentials
    {
        builder = builder
            .with_access_key_id(access_key_id)
            .with_secret_access_key(secret_access_key);
    }
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    let built = encrypted(builder, config).build();
    built.map_err(|cause| ObjectsError::S3 {
        url: url.to_owned(),
        cause,
    })
}

fn encrypted(builder: AmazonS3Builder, config: &S3Config) -> AmazonS3Builder {
    let set = |builder: AmazonS3Builder, name: &str, value: &str| {
        let key: AmazonS3ConfigKey = name.parse().expect("object_store knows this key");
        builder.with_config(key, value)
    };
    let algorithm = "aws_server_side_encryption";
    match config.encryption {
        Encryption::BucketDefault => builder,
        Encryption::Aes256 => set(builder, algorithm, "AES256"),
        Encryption::Kms => {
            let mut builder = set(builder, algorithm, "aws:kms");
            if let Some(key) = &config.kms_key_id {
                builder = set(builder, "aws_sse_kms_key_id", key);
            }
            if config.bucket_key {
                builder = set(builder, "aws_sse_bucket_key_enabled", "true");
            }
            builder
        }
    }
}
