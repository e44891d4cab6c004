//! The object store of checkpoints, by its URL: what the worker relies on holds for each kind.
#![allow(
    clippy::disallowed_methods,
    reason = "tests of a production adapter: a real file system, a real server on a thread"
)]

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use processor::adapters::objects::{Credentials, open, open_with};
use processor::config::{CheckpointConfig, ProcessorConfig};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

fn config(overrides: &str) -> CheckpointConfig {
    let overrides = overrides.parse().expect("the overrides are TOML");
    ProcessorConfig::with_overrides(ProcessorConfig::example(), &overrides)
        .expect("the configuration is valid")
        .checkpoint
}

fn runtime() -> Runtime {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.expect("threads can be started")
}

fn credentials(access_key_id: &str, secret_access_key: &str) -> Credentials {
    Credentials::Given {
        access_key_id: access_key_id.to_owned(),
        secret_access_key: secret_access_key.to_owned(),
    }
}

fn text(bytes: &'static str) -> PutPayload {
    PutPayload::from_static(bytes.as_bytes())
}

/// What the worker relies on.
async fn keeps_its_promises(objects: Arc<dyn ObjectStore>, folder: &str) {
    let path = |name: &str| Path::from(format!("{folder}/{name}"));
    let only_new = || PutOptions::from(PutMode::Create);
    let manifest = path("manifests/00000000000000000007-1-run-1.json");
    objects
        .put(&path("files/1-run/60000-ab"), text("piece"))
        .await
        .expect("stored");
    objects
        .put_opts(&manifest, text("first"), only_new())
        .await
        .expect("it is new");
    let again = objects
        .put_opts(&manifest, text("second"), only_new())
        .await;
    assert!(
        matches!(again, Err(Error::AlreadyExists { .. })),
        "{again:?}"
    );
    let read = objects
        .get(&manifest)
        .await
        .expect("there")
        .bytes()
        .await
        .expect("whole");
    assert_eq!(read, Bytes::from_static(b"first"));
    let missing = objects.get(&path("files/none")).await;
    assert!(
        matches!(missing, Err(Error::NotFound { .. })),
        "{missing:?}"
    );

    let race = path("race");
    let racers = (0..12).map(|_| objects.put_opts(&race, text("x"), only_new()));
    let won = join_all(racers).await;
    assert_eq!(won.iter().filter(|result| result.is_ok()).count(), 1);

    let listed: Vec<_> = objects
        .list(Some(&Path::from(folder)))
        .map_ok(|meta| meta.location)
        .try_collect()
        .await
        .expect("listed");
    assert_eq!(listed.len(), 3, "{listed:?}");
    let doomed = futures_util::stream::iter(listed.into_iter().map(Ok)).boxed();
    let deleted: Vec<Path> = objects
        .delete_stream(doomed)
        .try_collect()
        .await
        .expect("deleted");
    assert_eq!(deleted.len(), 3);
    let mut left = objects.list(Some(&Path::from(folder)));
    assert!(left.next().await.is_none());
}

#[test]
fn memory_and_a_local_folder_keep_the_promises() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("objects");
    let url = format!("file://{}", folder.display());
    for url in ["memory:///", &url] {
        let objects =
            open(&config(&format!("checkpoint = {{ url = \"{url}\" }}"))).expect("opened");
        runtime().block_on(keeps_its_promises(objects, "checkpoints/group/topic/0"));
    }
    fs::remove_dir_all(folder).expect("it is this test's own");
}

#[test]
fn a_folder_that_cannot_be_made_is_told_by_its_key() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("not-a-folder");
    fs::write(&file, "").expect("writable");
    let url = format!("file://{}/below", file.display());
    let error = open(&config(&format!("checkpoint = {{ url = \"{url}\" }}"))).err();
    let message = error.expect("it is below a file").to_string();
    assert!(
        message.contains("checkpoint.url") && message.contains("absolute folder"),
        "{message}"
    );
}

#[test]
fn a_bucket_with_a_folder_behind_it_is_told_where_the_folder_goes() {
    let error = open(&config("checkpoint = { url = \"s3://bucket/folder\" }")).err();
    let message = error.expect("that is no bucket").to_string();
    assert!(message.contains("checkpoint.prefix"), "{message}");
    let mut other = config("");
    other.url = "ftp://x".into();
    let message = open(&other).expect_err("no such scheme").to_string();
    assert!(message.contains("s3://bucket"), "{message}");
}

/// Takes one request, answers it, and returns its head.
fn serve_once(listener: TcpListener) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a request comes");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("a whole head");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("heads are text");
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.parse().ok())?
        });
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).expect("a whole body");
        let answer =
            b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(answer).expect("it waits");
        head.to_lowercase()
    })
}

/// The head of the request that a conditional PUT under these settings sends.
fn request_of(settings: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let server = serve_once(listener);
    let config = config(&format!(
        "checkpoint = {{ url = \"s3://bucket\", s3 = {{ endpoint = \"http://{address}\", \
         region = \"eu-central-1\", allow_http = true, {settings} }} }}"
    ));
    let objects = open_with(&config, &credentials("key", "secret")).expect("opened");
    let put = async {
        let create = PutOptions::from(PutMode::Create);
        objects
            .put_opts(&Path::from("a/b"), text("x"), create)
            .await
    };
    runtime().block_on(put).expect("answered");
    server.join().expect("served")
}

#[test]
fn encryption_and_the_condition_are_asked_for_with_each_put() {
    let plain = request_of("sse = \"none\"");
    assert!(plain.starts_with("put /bucket/a/b "), "{plain}");
    assert!(plain.contains("if-none-match: *"), "{plain}");
    assert!(plain.contains("eu-central-1"), "{plain}");
    assert!(!plain.contains("server-side-encryption"), "{plain}");

    let aes = request_of("sse = \"AES256\"");
    assert!(
        aes.contains("x-amz-server-side-encryption: aes256"),
        "{aes}"
    );

    let kms = request_of("sse = \"aws:kms\", kms_key_id = \"my-key\", bucket_key = true");
    for header in [
        "x-amz-server-side-encryption: aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id: my-key",
        "x-amz-server-side-encryption-bucket-key-enabled: true",
    ] {
        assert!(kms.contains(header), "no {header} in {kms}");
    }
}

/// A genuine S3 server, when `cargo xtask s3 up` has started one.
#[test]
fn a_genuine_s3_server_keeps_the_promises() {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/s3/s3.json");
    let Ok(server) = fs::read(&manifest) else {
        println!(
            "skipped: {} is not there; start one by `cargo xtask s3 up`",
            manifest.display()
        );
        return;
    };
    let server: serde_json::Value = serde_json::from_slice(&server).expect("it is JSON");
    let told = |key: &str| server[key].as_str().expect("a text").to_owned();
    let config = config(&format!(
        "checkpoint = {{ url = \"s3://{}\", s3 = {{ endpoint = \"{}\", region = \"{}\", \
         allow_http = true }} }}",
        told("bucket"),
        told("endpoint"),
        told("region")
    ));
    let given = credentials(&told("access_key"), &told("secret_key"));
    let objects = open_with(&config, &given).expect("opened");
    let folder = format!("test-{:x}", std::process::id());
    runtime().block_on(keeps_its_promises(objects, &folder));

    let wrong = open_with(&config, &credentials(&told("access_key"), "wrong")).expect("opened");
    let refused = runtime().block_on(async { wrong.get(&Path::from("a")).await.err() });
    let message = refused.expect("the signature is wrong").to_string();
    assert!(
        message.contains("403") || message.contains("Signature"),
        "{message}"
    );
}
