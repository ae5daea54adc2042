//! How containerd asks: gRPC on a unix socket.
//!
//! Owns decoding, calling and replying; the only module that names `tonic`. Must not decide anything. Invariant: a call that can block
//! runs on a thread where that harms nobody.

mod convert;
mod snapshots;
mod status;

pub use snapshots::SnapshotsService;

use crate::snapshotter::Snapshotter;
use std::future::Future;
use std::os::unix::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

/// The generated types, server and client.
pub mod proto {
    #![expect(missing_docs, clippy::doc_markdown, reason = "generated; docs are in proto/")]

    /// `containerd.types`
    pub mod types {
        tonic::include_proto!("containerd.types");
    }

    /// `containerd.services.snapshots.v1`
    pub mod services {
        /// `containerd.services.snapshots`
        pub mod snapshots {
            /// `containerd.services.snapshots.v1`
            pub mod v1 {
                tonic::include_proto!("containerd.services.snapshots.v1");
            }
        }
    }
}

/// As containerd limits its own messages.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Serves until `end` is ready, then lets the running calls finish.
///
/// # Errors
/// The socket's.
pub async fn serve(
    snapshotter: Snapshotter,
    socket: UnixListener,
    end: impl Future<Output = ()>,
) -> std::io::Result<()> {
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UnixListener::from_std(socket)?;
    let service =
        proto::services::snapshots::v1::snapshots_server::SnapshotsServer::new(SnapshotsService::new(snapshotter))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let server = tonic::transport::Server::builder().add_service(service);
    server.serve_with_incoming_shutdown(UnixListenerStream::new(socket), end).await.map_err(std::io::Error::other)
}
