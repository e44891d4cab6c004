//! A new cluster: its version, its ports, its folder; and what may not be changed later.

use super::manifest::{Broker, BrokerState, Manifest, Place};
use super::{BROKERS_MAX, NEWEST, Options, hint, jars, properties, server};
use crate::{ports, process};
use anyhow::bail;
use std::fs;
use std::path::Path;

/// Ports of each broker: direct, proxied, advertised, controller.
const PORTS_EACH: usize = 4;

/// A cluster that exists is not changed by `up`.
///
/// # Errors
/// When it differs from what is asked for.
pub fn check_same(manifest: &Manifest, options: &Options) -> anyhow::Result<()> {
    let differs = |what: &str, is: &str, wanted: &str| {
        anyhow::anyhow!(
            "cluster `{0}` exists with {what} {is}, not {wanted}; remove it first by: {1}",
            manifest.name,
            hint("down", &manifest.name)
        )
    };
    if let Some(wanted) = options.version
        && wanted != manifest.kafka_version()?
    {
        return Err(differs("version", &manifest.version, &wanted.to_string()));
    }
    let count = manifest.brokers.len();
    if let Some(wanted) = options.brokers
        && usize::try_from(wanted)? != count
    {
        return Err(differs("brokers", &count.to_string(), &wanted.to_string()));
    }
    if !options.properties.is_empty() && options.properties != manifest.properties {
        let (is, wanted) = (manifest.properties.join(" "), options.properties.join(" "));
        return Err(differs(
            "properties",
            &format!("[{is}]"),
            &format!("[{wanted}]"),
        ));
    }
    Ok(())
}

/// A new cluster that does not run yet. The caller holds the lock.
///
/// # Errors
/// When Java or the jars are missing, or too few ports are free.
pub fn create(root: &Path, place: &Place, options: &Options) -> anyhow::Result<Manifest> {
    let version = match options.version {
        Some(version) => version,
        None => NEWEST.parse()?,
    };
    let count = options.brokers.unwrap_or(3);
    if !(1..=BROKERS_MAX).contains(&count) {
        bail!("{count} brokers: take 1 to {BROKERS_MAX}");
    }
    for property in &options.properties {
        properties::parse(property)?;
    }
    jars::java(version)?;
    jars::fetch(root, version)?;
    // Brokers whose manifest was deleted while they ran.
    for id in 1..=BROKERS_MAX {
        process::kill(&server::mark(&place.broker(id)))?;
    }
    place.remove()?;
    fs::create_dir_all(place.folder())?;

    let _ports_lock = place.lock_ports()?;
    let wanted = usize::try_from(count)? * PORTS_EACH;
    let ports = ports::free(ports::KAFKA, wanted, &place.reserved_ports()?)?;
    let brokers = (1..=count)
        .zip(ports.chunks_exact(PORTS_EACH))
        .map(|(id, ports)| Broker {
            id,
            port: ports[0],
            proxied_port: ports[1],
            advertised_port: ports[2],
            controller_port: ports[3],
            pid: None,
            state: BrokerState::Killed,
            folder: place.broker(id),
        });
    let mut manifest = Manifest {
        name: place.name().to_owned(),
        version: version.to_string(),
        cluster_id: server::new_cluster_id()?,
        bootstrap_servers: String::new(),
        proxied_bootstrap_servers: String::new(),
        properties: options.properties.clone(),
        brokers: brokers.collect(),
    };
    manifest.set_bootstrap_servers();
    place.write(&manifest)?;
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::super::DEFAULT_NAME;
    use super::super::manifest::tests::example;
    use super::*;

    #[test]
    fn a_cluster_that_exists_is_not_changed_by_other_wishes() -> anyhow::Result<()> {
        let manifest = example(3);
        let wish = |change: fn(&mut Options)| {
            let mut options = Options::named(DEFAULT_NAME);
            change(&mut options);
            check_same(&manifest, &options)
        };
        wish(|_| ())?;
        wish(|options| options.brokers = Some(3))?;
        wish(|options| options.version = "4.4.0".parse().ok())?;
        for other in [
            wish(|options| options.brokers = Some(1)),
            wish(|options| options.version = "3.9".parse().ok()),
            wish(|options| options.properties = vec!["a=b".to_owned()]),
        ] {
            let error = other.unwrap_err().to_string();
            assert!(error.contains("cargo xtask kafka down"), "{error}");
        }
        Ok(())
    }
}
