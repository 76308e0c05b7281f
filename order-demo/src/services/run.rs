//! One service process, from its configuration to its end.

use futures_util::future::{BoxFuture, FutureExt as _};
use std::sync::Arc;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::config::{Mode, ServiceConfig};
use super::kit::Kit;
use super::{admin, event, monolith, rest};
use crate::domain::role::Role;
use crate::gateway;

/// The name of the gateway among the services.
pub const GATEWAY: &str = "gateway";

/// Runs a service by name until it is told to stop.
///
/// # Errors
/// When it cannot start or go on.
pub fn run(
    name: &str,
    config: ServiceConfig,
    stop: CancellationToken,
) -> BoxFuture<'_, anyhow::Result<()>> {
    async move {
        if name == GATEWAY {
            return match config.mode {
                Mode::Event => gateway::event::run(&config, stop).await,
                Mode::Monolith | Mode::MonolithReplicated => monolith::run(&config, stop).await,
                Mode::RestNaive | Mode::RestHardened => rest::run_gateway(&config, stop).await,
            };
        }
        let role = Role::named(name).with_context(|| format!("there is no service {name:?}"))?;
        let kit = Arc::new(Kit::of(role, &config)?);
        let listener = admin::listen(&config).await?;
        let mut routes = admin::routes();
        if config.mode != Mode::Event {
            routes = routes.merge(rest::routes());
        }
        let door = axum::serve(listener, routes.with_state(Arc::clone(&kit)));
        if config.mode != Mode::Event {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ended = door => return ended.context("the door has closed"),
            }
        }
        tokio::select! {
            done = event::run(role, &config, kit, stop) => done,
            ended = door => ended.context("the door has closed"),
        }
    }
    .boxed()
}
