//! The checkpoint store: whether a conditional create works there, which ownership of manifests rests on.

use crate::commands::stores;
use crate::commands::verdict::{Finding, Verdict};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use processor::config::ProcessorConfig;
use std::time::{SystemTime, UNIX_EPOCH};

/// Clocks that differ by more than this make ages of checkpoints wrong.
const SKEW_MS_MAX: i64 = 60_000;

/// Creates, creates again, reads and deletes one object.
///
/// # Errors
/// When no runtime can be made.
pub fn examine(config: &ProcessorConfig) -> anyhow::Result<Vec<Finding>> {
    let about = format!("store {}", config.checkpoint.url);
    let store = match stores::checkpoints(config) {
        Ok(store) => store,
        Err(error) => {
            let fix = error.to_string();
            return Ok(vec![Finding::new(
                Verdict::Wrong,
                &about,
                "opened",
                "no",
                fix,
            )]);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let now_ms = unix_ms();
    let path = Path::from(format!(
        "{}/check-{}-{now_ms}",
        config.checkpoint.prefix,
        std::process::id()
    ));
    Ok(runtime.block_on(probe(&*store, &about, &path, now_ms)))
}

async fn probe(store: &dyn ObjectStore, about: &str, path: &Path, now_ms: i64) -> Vec<Finding> {
    let content = PutPayload::from_static(b"probe");
    let create = || store.put_opts(path, content.clone(), PutOptions::from(PutMode::Create));
    if let Err(error) = create().await {
        let fix = "allow to put objects below checkpoint.prefix; a store without conditional create (If-None-Match) \
                   cannot be used";
        return vec![Finding::new(
            Verdict::Wrong,
            about,
            "conditional create",
            error,
            fix,
        )];
    }
    let mut findings = Vec::new();
    findings.push(match create().await {
        Err(Error::AlreadyExists { .. }) => Finding::ok(about, "conditional create", "works"),
        Ok(_) => {
            let fix = "the store ignores If-None-Match: two owners could overwrite each other's manifests; take another \
                       store";
            let found = "the second create overwrote the first";
            Finding::new(Verdict::Wrong, about, "conditional create", found, fix)
        }
        Err(error) => {
            let fix = "the second create must be refused as a conflict; take another store";
            Finding::new(Verdict::Wrong, about, "conditional create", error, fix)
        }
    });
    findings.push(match store.head(path).await {
        Ok(meta) => clock(about, meta.last_modified.timestamp_millis() - now_ms),
        Err(error) => {
            let fix = "allow to get and list objects below checkpoint.prefix";
            Finding::new(Verdict::Wrong, about, "read", error, fix)
        }
    });
    findings.push(match store.delete(path).await {
        Ok(()) => Finding::ok(about, "delete", "works"),
        Err(error) => {
            let fix = "allow to delete objects below checkpoint.prefix; without it, old checkpoints stay for ever";
            Finding::new(Verdict::Risky, about, "delete", error, fix)
        }
    });
    findings
}

fn clock(about: &str, ahead_ms: i64) -> Finding {
    let (property, found) = ("clock", format!("{ahead_ms} ms ahead of this machine"));
    if ahead_ms.abs() <= SKEW_MS_MAX {
        return Finding::ok(about, property, found);
    }
    let fix = "synchronise this machine's clock (NTP): idle partitions are closed by it";
    Finding::new(Verdict::Risky, about, property, found, fix)
}

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    fn probed(store: &dyn ObjectStore, now_ms: i64) -> Vec<Finding> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let path = Path::from("checkpoints/check");
        let probe = probe(store, "store", &path, now_ms);
        runtime.expect("a runtime").block_on(probe)
    }

    #[test]
    fn a_store_with_conditional_create_is_right_and_left_clean() {
        let store = InMemory::new();
        let findings = probed(&store, unix_ms());
        assert!(
            findings.iter().all(|f| f.verdict == Verdict::Ok),
            "{findings:?}"
        );
        // It can be done again: nothing was left behind.
        assert_eq!(probed(&store, unix_ms()).len(), findings.len());
    }

    #[test]
    fn a_clock_that_is_wrong_is_risky() {
        let findings = probed(&InMemory::new(), unix_ms() - 3_600_000);
        let clock = findings.iter().find(|finding| finding.property == "clock");
        assert_eq!(clock.map(|clock| clock.verdict), Some(Verdict::Risky));
    }
}
