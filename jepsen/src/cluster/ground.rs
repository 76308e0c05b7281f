//! What brokers stand on: addresses, and whether this machine can give them namespaces and disks.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use anyhow::bail;

use super::network::Network;
use super::shell;

const GRPC_PORT: u16 = 9094;
const ADMIN_PORT: u16 = 9644;

/// Addresses for clients and for health. Without a network of their own the brokers take ports of
/// the loopback address that are free now and lie outside the range for outgoing connections.
pub(super) fn addresses(
    nodes: &[u32],
    network: Option<&Network>,
) -> anyhow::Result<BTreeMap<u32, (SocketAddr, SocketAddr)>> {
    let mut addresses = BTreeMap::new();
    if let Some(network) = network {
        for node in nodes {
            let ip = network.address(*node).into();
            let at = |port| SocketAddr::new(ip, port);
            addresses.insert(*node, (at(GRPC_PORT), at(ADMIN_PORT)));
        }
        return Ok(addresses);
    }
    // All are held until all are chosen, so that none is chosen twice.
    let mut held = Vec::new();
    for node in nodes {
        let mut free = || -> anyhow::Result<SocketAddr> {
            for _ in 0..64 {
                let port = rand::random_range(20_000..32_000);
                if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                    let address = listener.local_addr()?;
                    held.push(listener);
                    return Ok(address);
                }
            }
            bail!("no free port")
        };
        addresses.insert(*node, (free()?, free()?));
    }
    Ok(addresses)
}

/// Whether namespaces can be made here; otherwise why not.
///
/// # Errors
/// One sentence.
pub fn can_make_namespaces() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("network namespaces need root".to_owned());
    }
    for program in ["ip", "nft", "nsenter"] {
        if shell::find(program).is_none() {
            return Err(format!(
                "`{program}` is not there (packages iproute2, nftables, util-linux)"
            ));
        }
    }
    if !Path::new("/run").is_dir() {
        return Err("there is no /run".to_owned());
    }
    Ok(())
}

/// Whether file systems can be mounted here; otherwise why not.
///
/// # Errors
/// One sentence.
pub fn can_mount() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("mounting a file system needs root".to_owned());
    }
    if !Path::new("/dev/fuse").exists() {
        return Err("there is no /dev/fuse".to_owned());
    }
    Ok(())
}
