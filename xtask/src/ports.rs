//! Free ports on 127.0.0.1.
//!
//! They are taken from below the range that the system gives to outgoing connections, so that a
//! killed server finds its ports free when it is started again.

use anyhow::bail;
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::ops::Range;

/// Where the ports of brokers are.
pub const KAFKA: Range<u16> = 19_092..26_000;
/// Where the ports of S3 servers are.
pub const S3: Range<u16> = 26_092..32_000;

/// `count` ports in `range` that nothing listens on and that are not in `reserved`, in rising order.
///
/// # Errors
/// When there are not enough.
pub fn free(range: Range<u16>, count: usize, reserved: &BTreeSet<u16>) -> anyhow::Result<Vec<u16>> {
    let ports: Vec<u16> = range
        .clone()
        .filter(|port| !reserved.contains(port))
        .filter(|port| is_free(*port))
        .take(count)
        .collect();
    if ports.len() < count {
        bail!(
            "only {} of {count} ports are free on 127.0.0.1 in {}..{}; end what listens there",
            ports.len(),
            range.start,
            range.end
        );
    }
    Ok(ports)
}

/// True when nothing listens on the port.
#[must_use]
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_reserved_ports_nor_ports_in_use_are_given() -> anyhow::Result<()> {
        let first = free(KAFKA, 2, &BTreeSet::new())?;
        let _in_use = TcpListener::bind(("127.0.0.1", first[0]));
        let reserved = BTreeSet::from([first[1]]);
        let second = free(KAFKA, 3, &reserved)?;
        assert!(!second.contains(&first[0]) && !second.contains(&first[1]));
        Ok(())
    }

    #[test]
    fn more_ports_than_there_are_is_an_error() {
        let all: BTreeSet<u16> = KAFKA.collect();
        let error = free(KAFKA, 1, &all).unwrap_err().to_string();
        assert!(error.contains("0 of 1 ports"), "{error}");
    }
}
