//! Metrics and health over HTTP.
//!
//! - `/metrics`: OpenMetrics text.
//! - `/healthz`: 200 while the process lives.
//! - `/readyz`: 200 when every worker polls and none has failed; otherwise 503 and the reasons.

use super::{Health, Metrics};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the server shows.
#[derive(Clone)]
struct Shown {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

/// The metrics' address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "metrics.listen = \"{address}\": {cause}; choose another port (0 takes a free one), or \"\" for no metrics"
)]
pub struct ListenError {
    /// The configured address.
    pub address: SocketAddr,
    /// What the system says.
    pub cause: std::io::Error,
}

/// Listens on `address` and serves until the runtime ends. Returns the address, with the port that was
/// taken.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
) -> Result<SocketAddr, ListenError> {
    let refused = |cause| ListenError { address, cause };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let taken = listener.local_addr().map_err(refused)?;
    let routes = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(show_readiness))
        .with_state(Shown { metrics, health });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "metrics are not served any more");
        }
    });
    Ok(taken)
}

async fn show_metrics(State(shown): State<Shown>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], shown.metrics.text())
}

async fn show_readiness(State(shown): State<Shown>) -> impl IntoResponse {
    let obstacles = shown.health.obstacles();
    if obstacles.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let text = format!("{}\n", obstacles.join("\n"));
    (StatusCode::SERVICE_UNAVAILABLE, text)
}
