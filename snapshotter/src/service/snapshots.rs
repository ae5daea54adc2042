//! `containerd.services.snapshots.v1.Snapshots`.
//!
//! Owns one method a call. Must not decide anything. Invariant: a listing holds no lock while it is sent.

use super::proto::services::snapshots::v1 as api;
use super::{convert, status};
use crate::error::Result;
use crate::snapshot::Space;
use crate::snapshotter::Snapshotter;
use api::snapshots_server::Snapshots;
use tokio_stream::Iter;
use tonic::{Request, Response, Status};

/// How many snapshots go into one message of a listing, as in containerd's own service.
const LIST_BLOCK: usize = 100;

/// The service.
#[derive(Debug)]
pub struct SnapshotsService {
    snapshotter: Snapshotter,
}

type Answer<T> = std::result::Result<Response<T>, Status>;

impl SnapshotsService {
    /// Of this snapshotter.
    pub fn new(snapshotter: Snapshotter) -> SnapshotsService {
        SnapshotsService { snapshotter }
    }

    /// Runs a blocking operation where that is allowed. It is brought to its end also when the caller has gone.
    async fn run<T: Send + 'static>(
        &self,
        rpc: &'static str,
        operation: impl FnOnce(&Snapshotter) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, Status> {
        let snapshotter = self.snapshotter.clone();
        let done = tokio::task::spawn_blocking(move || operation(&snapshotter)).await;
        let outcome = done.map_err(|_| Status::internal(format!("{rpc}: internal error; the log has more")))?;
        outcome.map_err(|error| {
            tracing::debug!(rpc, %error, "refused");
            status::of(&error)
        })
    }
}

#[tonic::async_trait]
impl Snapshots for SnapshotsService {
    async fn prepare(&self, request: Request<api::PrepareSnapshotRequest>) -> Answer<api::PrepareSnapshotResponse> {
        let request = request.into_inner();
        let space = Space::containerd(&request.snapshotter);
        let labels = convert::labels(request.labels);
        let mounts = self.run("Prepare", move |to| to.prepare(&space, &request.key, &request.parent, labels)).await?;
        Ok(Response::new(api::PrepareSnapshotResponse { mounts: convert::mounts(mounts) }))
    }

    async fn view(&self, request: Request<api::ViewSnapshotRequest>) -> Answer<api::ViewSnapshotResponse> {
        let request = request.into_inner();
        let space = Space::containerd(&request.snapshotter);
        let labels = convert::labels(request.labels);
        let mounts = self.run("View", move |to| to.view(&space, &request.key, &request.parent, labels)).await?;
        Ok(Response::new(api::ViewSnapshotResponse { mounts: convert::mounts(mounts) }))
    }

    async fn mounts(&self, request: Request<api::MountsRequest>) -> Answer<api::MountsResponse> {
        let request = request.into_inner();
        let space = Space::containerd(&request.snapshotter);
        let mounts = self.run("Mounts", move |to| to.mounts(&space, &request.key)).await?;
        Ok(Response::new(api::MountsResponse { mounts: convert::mounts(mounts) }))
    }

    async fn commit(&self, request: Request<api::CommitSnapshotRequest>) -> Answer<()> {
        let request = request.into_inner();
        let space = Space::containerd(&request.snapshotter);
        let labels = convert::labels(request.labels);
        let commit = move |to: &Snapshotter| to.commit(&space, &request.name, &request.key, &request.parent, labels);
        self.run("Commit", commit).await.map(Response::new)
    }

    async fn remove(&self, request: Request<api::RemoveSnapshotRequest>) -> Answer<()> {
        let request = request.into_inner();
        let space = Space::containerd(&request.snapshotter);
        self.run("Remove", move |to| to.remove(&space, &request.key)).await.map(Response::new)
    }

    async fn stat(&self, request: Request<api::StatSnapshotRequest>) -> Answer<api::StatSnapshotResponse> {
        let request = request.into_inner();
        let space = Space::containerd(&request.snapshotter);
        let snapshot = self.run("Stat", move |to| to.stat(&space, &request.key)).await?;
        Ok(Response::new(api::StatSnapshotResponse { info: Some(convert::info(snapshot)) }))
    }

    async fn update(&self, request: Request<api::UpdateSnapshotRequest>) -> Answer<api::UpdateSnapshotResponse> {
        let request = request.into_inner();
        let space = Space::containerd(&request.snapshotter);
        let info = request.info.unwrap_or_default();
        let labels = convert::labels(info.labels);
        let fields = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
        let snapshot = self.run("Update", move |to| to.update(&space, &info.name, &labels, &fields)).await?;
        Ok(Response::new(api::UpdateSnapshotResponse { info: Some(convert::info(snapshot)) }))
    }

    type ListStream = Iter<std::vec::IntoIter<std::result::Result<api::ListSnapshotsResponse, Status>>>;

    async fn list(&self, request: Request<api::ListSnapshotsRequest>) -> Answer<Self::ListStream> {
        let request = request.into_inner();
        let space = Space::containerd(&request.snapshotter);
        let found = self.run("List", move |to| to.list(&space, &request.filters)).await?;
        let infos: Vec<api::Info> = found.into_iter().map(convert::info).collect();
        let block = |infos: &[api::Info]| Ok(api::ListSnapshotsResponse { info: infos.to_vec() });
        let blocks: Vec<_> = infos.chunks(LIST_BLOCK).map(block).collect();
        Ok(Response::new(tokio_stream::iter(blocks)))
    }

    async fn usage(&self, request: Request<api::UsageRequest>) -> Answer<api::UsageResponse> {
        let request = request.into_inner();
        let space = Space::containerd(&request.snapshotter);
        let usage = self.run("Usage", move |to| to.usage(&space, &request.key)).await?;
        Ok(Response::new(api::UsageResponse { size: usage.size.cast_signed(), inodes: usage.inodes.cast_signed() }))
    }

    /// Remove puts nothing off, so there is nothing to clean up.
    async fn cleanup(&self, _: Request<api::CleanupRequest>) -> Answer<()> {
        Ok(Response::new(()))
    }
}
