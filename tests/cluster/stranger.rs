//! A supervisor of another version: its worker ends and says so, rather than to ask again for ever.

use std::pin::Pin;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use autopack_shared::wire::pb::worker_service_server::{WorkerService, WorkerServiceServer};
use autopack_shared::wire::pb::{
    FetchChunk, FetchRequest, SupervisorMessage, TranscriptChunk, TranscriptResult, UploadChunk, UploadResult,
    WorkerMessage,
};
use autopack_supervisor::error::Error;

use crate::harness::ran;

/// How long it may take to end.
const SOON: Duration = Duration::from_secs(30);

struct Stranger;

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl WorkerService for Stranger {
    type SessionStream = Out<SupervisorMessage>;
    type FetchObjectsStream = Out<FetchChunk>;

    async fn session(&self, _: Request<Streaming<WorkerMessage>>) -> Result<Response<Self::SessionStream>, Status> {
        Err(Error::Version { theirs: 1, ours: 2 }.into())
    }

    async fn upload_objects(&self, _: Request<Streaming<UploadChunk>>) -> Result<Response<UploadResult>, Status> {
        unreachable!("a worker without a session")
    }

    async fn upload_transcript(
        &self,
        _: Request<Streaming<TranscriptChunk>>,
    ) -> Result<Response<TranscriptResult>, Status> {
        unreachable!("a worker without a session")
    }

    async fn fetch_objects(&self, _: Request<FetchRequest>) -> Result<Response<Self::FetchObjectsStream>, Status> {
        unreachable!("a worker without a session")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_of_another_version_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stub = Server::builder().add_service(WorkerServiceServer::new(Stranger));
    let serving = stub.serve_with_incoming(TcpListenerStream::new(listener));
    let root = tempfile::tempdir().unwrap();
    let mut worker = Command::new(env!("CARGO_BIN_EXE_autopack"));
    worker.env_clear().env("HOME", root.path()).env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    worker.args(["worker", "--name", "w1", "--supervisor", &url, "--root"]).arg(root.path().join("w1"));
    let mut worker = tokio::process::Command::from(worker);
    let works = tokio::time::timeout(SOON, worker.kill_on_drop(true).output());
    let done = tokio::select! {
        done = works => ran(&done.expect("it ends").unwrap()),
        served = serving => panic!("{served:?}"),
    };
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.stderr.starts_with("error[version]: the worker cannot join"), "{}", done.stderr);
}
