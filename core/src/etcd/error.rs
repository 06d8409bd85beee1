//! Why a call failed: what the client says, sorted by what the caller can do about it.

use std::error::Error;
use std::time::Duration;

use thiserror::Error;

/// Why an etcd call failed, by what the caller can do about it.
#[derive(Debug, Clone, Error)]
pub enum EtcdError {
    /// Nobody answered, or the answer was lost: a write may or may not have happened.
    #[error("etcd {endpoints}: {detail}")]
    Unreachable {
        /// The configured endpoints.
        endpoints: String,
        /// What the transport said.
        detail: String,
    },
    /// etcd's access control refused.
    #[error(
        "etcd {endpoints}: {detail} (ask for access to the key prefix, or check user and password)"
    )]
    Denied {
        /// The configured endpoints.
        endpoints: String,
        /// What etcd said.
        detail: String,
    },
    /// etcd takes no more writes until somebody makes room; nothing happened.
    #[error("etcd {endpoints}: {detail} ({OUT_OF_SPACE})")]
    Full {
        /// The configured endpoints.
        endpoints: String,
        /// What etcd said.
        detail: String,
    },
    /// etcd refused for another reason; nothing happened.
    #[error("etcd {endpoints}: {detail}")]
    Refused {
        /// The configured endpoints.
        endpoints: String,
        /// What etcd said.
        detail: String,
    },
}

/// What to do when etcd takes no more writes: <https://etcd.io/docs/v3.5/op-guide/maintenance/>.
const OUT_OF_SPACE: &str = "it takes no more writes: compact and defragment it, then run `etcdctl alarm disarm`; \
                            a higher --quota-backend-bytes and --auto-compaction-retention keep it from happening again";

impl EtcdError {
    /// What an operator is told of a failed call.
    pub(super) fn of(failure: &Failure, endpoints: &str) -> Self {
        let endpoints = endpoints.to_owned();
        let said = match failure {
            Failure::Silence(limit) => {
                let detail = format!("no answer within {} s", limit.as_secs_f32());
                return Self::Unreachable { endpoints, detail };
            }
            Failure::Said(said) => said,
        };
        let mut detail = words(said);
        if ["invalid peer certificate", "received fatal alert"].iter().any(|t| detail.contains(t)) {
            detail.push_str(" (check the CA, the certificate and the key for etcd)");
        }
        match said {
            etcd_client::Error::GRpcStatus(status) => {
                let says = |text| status.message().contains(text);
                // gRPC status codes: https://grpc.io/docs/guides/status-codes/
                match i32::from(status.code()) {
                    7 | 16 => Self::Denied { endpoints, detail },
                    3 if says("authentication failed") || says("user name is empty") => {
                        Self::Denied { endpoints, detail }
                    }
                    8 if says("database space exceeded") => Self::Full { endpoints, detail },
                    8 if says("too many requests") => Self::Unreachable { endpoints, detail },
                    1 | 2 | 4 | 13 | 14 => Self::Unreachable { endpoints, detail },
                    _ => Self::Refused { endpoints, detail },
                }
            }
            etcd_client::Error::LeaseKeepAliveError(text) if text.contains("not found") => {
                Self::Refused { endpoints, detail }
            }
            _ => Self::Unreachable { endpoints, detail },
        }
    }

    /// What the transport or etcd said.
    pub(super) fn detail(&self) -> &str {
        match self {
            Self::Unreachable { detail, .. }
            | Self::Denied { detail, .. }
            | Self::Full { detail, .. }
            | Self::Refused { detail, .. } => detail,
        }
    }

    /// Whether the revision that was asked for is gone, or has not come to a member that lags.
    pub(super) fn lacks_revision(&self) -> bool {
        let told = |detail: &str| {
            detail.contains("has been compacted") || detail.contains("is a future revision")
        };
        matches!(self, Self::Refused { detail, .. } if told(detail))
    }

    /// Whether the request may have been carried out although no answer came.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// Why one call to one endpoint failed.
pub(super) enum Failure {
    /// No answer within so long.
    Silence(Duration),
    /// What the client said.
    Said(etcd_client::Error),
}

impl Failure {
    /// Whether the request cannot have left this machine: only connecting is ever refused.
    pub(super) fn never_sent(&self) -> bool {
        let Self::Said(etcd_client::Error::GRpcStatus(status)) = self else { return false };
        let mut cause = status.source();
        while let Some(e) = cause {
            if let Some(e) = e.downcast_ref::<std::io::Error>() {
                return e.kind() == std::io::ErrorKind::ConnectionRefused;
            }
            cause = e.source();
        }
        false
    }
}

/// Whether etcd says that it does not know our token, or that users changed since we got it.
pub(super) fn forgotten(message: &str) -> bool {
    [
        "invalid auth token",
        "revision in header is old",
        "revision of auth store is old",
        "user name is empty",
    ]
    .iter()
    .any(|text| message.contains(text))
}

/// What an error says, with what lies at the bottom of it: "transport error" alone helps nobody.
pub(super) fn words(e: &etcd_client::Error) -> String {
    let (top, mut below): (String, Option<&dyn Error>) = match e {
        etcd_client::Error::GRpcStatus(status) => (status.message().to_owned(), status.source()),
        etcd_client::Error::TransportError(e) => (e.to_string(), e.source()),
        other => (other.to_string(), None),
    };
    let mut last = None;
    while let Some(cause) = below {
        last = Some(cause.to_string());
        below = cause.source();
    }
    match last {
        Some(last) if top.is_empty() => last,
        Some(last) if !top.contains(&last) => format!("{top}: {last}"),
        _ => top,
    }
}
