//! The end that answers: accepts peers, takes their requests, sends what a `Service` answers. Knows no disk.

use super::{
    GIVEN_UP, HANDSHAKE, Unsent, broken, endpoint_config, peer_of, receive_end, receive_header,
    receive_rest, socket, transport, urgency,
};
use crate::error::{Error, ErrorKind, Result};
use crate::net::tls::{Identity, PeerIdentity};
use crate::net::wire::{Answer, Header, Order};
use crate::sync::Arc;
use crate::types::MountId;
use futures_util::future::BoxFuture;
use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig, VarInt};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Payload bytes of requests that are worked on at once; others wait before they are received.
const REQUEST_BYTES_MAX: usize = 256 << 20;
/// Bytes of answers that are made or sent at once; other requests wait before they are served.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// How long the rest of a request may take whose header has come: room is held for it.
const HALF_WAIT: Duration = Duration::from_secs(30);

/// Who is at the other end of a request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What its certificate says.
    pub peer: PeerIdentity,
    /// Where from.
    pub address: SocketAddr,
}

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// Answers a request of a mount. Dropped if the caller gives it up.
    fn serve<'a>(
        &'a self,
        caller: &'a Caller,
        mount: MountId,
        order: Order,
    ) -> BoxFuture<'a, Answer>;

    /// Bytes that the answer to a request takes at most, as far as it says.
    fn answer_bytes(&self, order: &Order) -> u64;
}

/// Listens for peers.
pub struct Listener {
    endpoint: Endpoint,
    identity: watch::Sender<Arc<Identity>>,
    /// How long half a request is waited for.
    pub(super) half_wait: Duration,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// What all connections share.
struct Shared<S> {
    service: S,
    requests: Semaphore,
    answers: Semaphore,
    identity: watch::Receiver<Arc<Identity>>,
    half_wait: Duration,
    stop: CancellationToken,
}

impl Listener {
    /// Binds to `address`. Must be called inside a runtime.
    ///
    /// Errors: `Refused` if the address is taken or the identity unfit.
    pub fn bind(address: SocketAddr, identity: Arc<Identity>) -> Result<Self> {
        let config = config_of(&identity)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = Endpoint::new(endpoint_config()?, Some(config), socket(address)?, runtime)
            .map_err(|error| Error::refused(format!("listen on {address}: {error}")))?;
        Ok(Self { endpoint, identity: watch::channel(identity).0, half_wait: HALF_WAIT })
    }

    /// Where it listens.
    pub fn address(&self) -> Result<SocketAddr> {
        self.endpoint.local_addr().map_err(|error| Error::from_io("ask for the own address", error))
    }

    /// Goes by another identity from now on; peers whose certificates it calls revoked are cut off.
    ///
    /// Error: the identity is unfit; the old one stays.
    pub fn set_identity(&self, identity: Arc<Identity>) -> Result<()> {
        self.endpoint.set_server_config(Some(config_of(&identity)?));
        self.identity.send_replace(identity);
        Ok(())
    }

    /// Serves until `stop`; then no new requests, and those under way get `drain`.
    pub async fn run<S: Service>(&self, service: S, stop: CancellationToken, drain: Duration) {
        let tasks = TaskTracker::new();
        let shared = Arc::new(Shared {
            service,
            requests: Semaphore::new(REQUEST_BYTES_MAX),
            answers: Semaphore::new(ANSWER_BYTES_MAX),
            identity: self.identity.subscribe(),
            half_wait: self.half_wait,
            stop: stop.clone(),
        });
        loop {
            let incoming = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                incoming = self.endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { break };
            let (address, shared) = (incoming.remote_address(), shared.clone());
            tasks.spawn(async move {
                let accepted = match incoming.accept() {
                    Ok(connecting) => tokio::time::timeout(HANDSHAKE, connecting).await,
                    Err(error) => Ok(Err(error)),
                };
                match accepted {
                    Ok(Ok(connection)) => converse(shared, connection).await,
                    Ok(Err(error)) => tracing::warn!(%address, %error, "a peer was turned away"),
                    Err(_late) => tracing::warn!(%address, "a peer did not shake hands in time"),
                }
            });
        }
        tasks.close();
        if tokio::time::timeout(drain, tasks.wait()).await.is_err() {
            tracing::warn!("requests were still under way after {drain:?}; they are given up");
        }
        self.endpoint.close(VarInt::from_u32(0), b"the node ends");
        // What has not been taken by then never will be.
        drop(tokio::time::timeout(drain, self.endpoint.wait_idle()).await);
    }
}

fn config_of(identity: &Identity) -> Result<ServerConfig> {
    let mut config = ServerConfig::with_crypto(Arc::new(identity.server()?));
    config.transport_config(transport());
    Ok(config)
}

/// Serves one connection.
async fn converse<S: Service>(shared: Arc<Shared<S>>, connection: Connection) {
    let address = connection.remote_address();
    let turn_away = |error: &Error| {
        tracing::warn!(%address, %error, "a peer was turned away");
        connection.close(GIVEN_UP, error.to_string().as_bytes());
    };
    let peer = match peer_of(&connection) {
        Ok(peer) => peer,
        Err(error) => return turn_away(&error),
    };
    let caller = Arc::new(Caller { peer, address });
    tracing::info!(peer = %caller.peer, %address, "a peer has come");
    let requests = TaskTracker::new();
    let mut identity = shared.identity.clone();
    identity.mark_unchanged();
    let ended = loop {
        let stream = tokio::select! {
            biased;
            () = shared.stop.cancelled() => break None,
            changed = identity.changed() => {
                let revoked = changed.is_ok() && identity.borrow().has_revoked(&caller.peer);
                if revoked {
                    turn_away(&Error::refused(format!("{}: its certificate is revoked", caller.peer)));
                    break None;
                }
                continue;
            }
            stream = connection.accept_bi() => stream,
        };
        match stream {
            Ok((answers, request)) => {
                requests.spawn(answer(shared.clone(), caller.clone(), answers, request));
            }
            Err(error) => break Some(error),
        }
    };
    requests.close();
    requests.wait().await;
    if let Some(error) = ended {
        tracing::info!(peer = %caller.peer, %address, %error, "a peer has left");
    }
}

/// Answers the requests of one stream; gives them up when the caller does.
async fn answer<S: Service>(
    shared: Arc<Shared<S>>,
    caller: Arc<Caller>,
    mut answers: SendStream,
    request: RecvStream,
) {
    let gone = answers.stopped();
    let done = tokio::select! {
        biased;
        done = answer_to(&shared, &caller, request, &mut answers) => done,
        _ = gone => return,
    };
    if let Err(error) = done {
        tracing::debug!(peer = %caller.peer, %error, "an answer was not taken");
    }
}

/// Answers the requests of one stream, in order. One that fails is the last.
async fn answer_to<S: Service>(
    shared: &Shared<S>,
    caller: &Caller,
    mut request: RecvStream,
    answers: &mut SendStream,
) -> Result<()> {
    let mut some = false;
    loop {
        let header = match receive_header(&mut request).await {
            Ok(Some(header)) => header,
            Ok(None) if some => return Unsent::new(answers).finish(),
            Ok(None) => return Err(broken("receive", &"a stream without a request")),
            Err(error) => return refuse(caller, 0, error, answers).await,
        };
        some = true;
        let admitted = match admit(shared, &mut request, &header).await {
            Ok(admitted) => admitted,
            Err(error) => return refuse(caller, header.id, error, answers).await,
        };
        let goes_on = admitted.order.may_be_followed();
        let answer = shared.service.serve(caller, header.mount, admitted.order).await;
        let last = !goes_on || matches!(answer, Answer::Error(_));
        // The stream may be closed already.
        answers.set_priority(urgency(header.priority)).unwrap_or_default();
        let mut unsent = Unsent::new(answers);
        unsent.send(answer.pack(header.id)).await?;
        if last {
            return unsent.finish();
        }
        unsent.keep();
    }
}

/// A request that was received, and what is held while it is worked on.
struct Admitted<'s> {
    order: Order,
    _receiving: SemaphorePermit<'s>,
    _sending: SemaphorePermit<'s>,
}

/// Receives what belongs to `header`, when there is room for it and for its answer.
async fn admit<'s, S: Service>(
    shared: &'s Shared<S>,
    request: &mut RecvStream,
    header: &Header,
) -> Result<Admitted<'s>> {
    let closed = |_closed| Error::internal("admit a request: the gate is closed");
    // Admitted before anything is allocated for it.
    let bytes = permits(header.payload_bytes, REQUEST_BYTES_MAX);
    let receiving = shared.requests.acquire_many(bytes).await.map_err(closed)?;
    let late = |_late| broken("receive", &"half a request, and no more of it");
    let rest = tokio::time::timeout(shared.half_wait, receive_rest(request, header)).await;
    let (body, payload) = rest.map_err(late)??;
    let order = Order::unpack(header, &body, payload)?;
    if !order.may_be_followed() {
        receive_end(request).await?;
    }
    let bytes = permits(shared.service.answer_bytes(&order), ANSWER_BYTES_MAX);
    let sending = shared.answers.acquire_many(bytes).await.map_err(closed)?;
    Ok(Admitted { order, _receiving: receiving, _sending: sending })
}

/// Tells a peer that its request was not understood; nothing if it was not received.
async fn refuse(caller: &Caller, id: u64, error: Error, answers: &mut SendStream) -> Result<()> {
    if error.kind() == ErrorKind::Unavailable {
        return Err(error);
    }
    tracing::warn!(peer = %caller.peer, address = %caller.address, %error, "a request was not understood");
    let mut unsent = Unsent::new(answers);
    unsent.send(Answer::Error(error).pack(id)).await?;
    unsent.finish()
}

fn permits(bytes: u64, most: usize) -> u32 {
    u32::try_from(bytes.min(most as u64)).unwrap_or(u32::MAX)
}
