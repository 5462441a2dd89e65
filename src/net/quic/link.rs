//! The end that asks: the way to one node, connected when it is needed, and again after a break. Knows no disk.

use super::{
    GIVEN_UP, HANDSHAKE, Unsent, broken, endpoint_config, peer_of, receive_end, receive_header,
    receive_rest, socket, transport, urgency,
};
use crate::error::{Error, ErrorKind, Result};
use crate::net::authority::Role;
use crate::net::tls::Identity;
use crate::net::wire::{Answer, Order};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::types::MountId;
use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use futures_util::stream::BoxStream;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Pause before the second try to connect; each further one waits twice as long ...
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// ... up to this.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Requests that are sent on one stream before the first of them is answered: the way there and back is used while the node
/// writes, and what waits there is bounded.
const AHEAD_MAX: usize = 4;

/// The way to one node. Must be used where its endpoint's runtime lives, or from any other one.
pub struct Link {
    endpoints: Endpoints,
    config: ClientConfig,
    /// Name that its certificate must have.
    name: String,
    /// `host:port`.
    address: String,
    mount: MountId,
    /// Who has a connection never waits for a turn: turns are given to requests that may not be polled for a while.
    state: Mutex<State>,
    /// Held by whoever connects.
    connecting: tokio::sync::Mutex<()>,
    next: AtomicU64,
}

#[derive(Debug)]
enum State {
    Connected(Connection),
    /// Not before this moment again.
    Broken {
        until: Instant,
        pause: Duration,
        why: Error,
    },
    New,
}

impl State {
    /// The connection if there is one, or why there cannot be one yet; None: connect.
    fn known(&self) -> Option<Result<Connection>> {
        match self {
            Self::Connected(connection) if connection.close_reason().is_none() => {
                Some(Ok(connection.clone()))
            }
            Self::Broken { until, why, .. } if Instant::now() < *until => Some(Err(why.clone())),
            Self::Connected(_) | Self::Broken { .. } | Self::New => None,
        }
    }

    /// How long to wait after a failure from here.
    fn next_pause(&self) -> Duration {
        match self {
            Self::Broken { pause, .. } => (*pause * 2).min(BACKOFF_MAX),
            Self::Connected(_) | Self::New => BACKOFF_MIN,
        }
    }
}

/// Sockets to connect from.
#[derive(Clone, Debug)]
pub struct Endpoints {
    v4: Endpoint,
    /// None where the system has no IPv6.
    v6: Option<Endpoint>,
}

impl Endpoints {
    /// Opens them. Must be called inside a runtime, on which connections are kept alive from now on.
    pub fn open() -> Result<Self> {
        let open = |address: SocketAddr| {
            let runtime = Arc::new(quinn::TokioRuntime);
            Endpoint::new(endpoint_config()?, None, socket(address)?, runtime)
                .map_err(|error| Error::from_io("open a socket", error))
        };
        let v6 = open(([0u16; 8], 0).into()).ok();
        Ok(Self { v4: open(([0, 0, 0, 0], 0).into())?, v6 })
    }

    fn to(&self, address: SocketAddr) -> Result<&Endpoint> {
        if address.is_ipv4() {
            return Ok(&self.v4);
        }
        let none = || Error::unavailable(format!("{address}: there is no IPv6 here"));
        self.v6.as_ref().ok_or_else(none)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("name", &self.name)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// The way to the node `name` at `address` (`host:port`), for `mount`.
    ///
    /// Error: the identity is unfit.
    pub fn new(
        endpoints: Endpoints,
        (name, address): (&str, &str),
        identity: &Identity,
        mount: MountId,
    ) -> Result<Self> {
        let mut config = ClientConfig::new(Arc::new(identity.client()?));
        config.transport_config(transport());
        let (name, address) = (name.to_owned(), address.to_owned());
        let (state, connecting) = (Mutex::new(State::New), tokio::sync::Mutex::default());
        let next = AtomicU64::new(1);
        Ok(Self { endpoints, config, name, address, mount, state, connecting, next })
    }

    /// Name of the node.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it leads: `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends a request and waits for the answer; the caller sets the limit of time. May be cancelled.
    ///
    /// Errors: what the node answers; `Unavailable` if it does not; `Refused` if it is not who it should be, or turns this
    /// mount away.
    pub async fn call(&self, order: Order) -> Result<Answer> {
        let connection = self.connection().await?;
        let asked = self.ask(&connection, order).await;
        self.judge(&connection, asked)
    }

    /// Sends requests on one stream, up to `AHEAD_MAX` before the first of them is answered, and waits for all answers; says
    /// what the last one is. They are carried out in order, up to the first that fails. May be cancelled.
    ///
    /// Errors: those of `call`; `Unavailable` if a request is not answered within `silence` of its turn.
    pub async fn call_in_order(
        &self,
        orders: BoxStream<'_, Order>,
        silence: Duration,
    ) -> Result<Answer> {
        let connection = self.connection().await?;
        let asked = self.ask_in_order(&connection, orders, silence).await;
        self.judge(&connection, asked)
    }

    /// Says where an answer or an error comes from; forgets a connection that is broken.
    fn judge(&self, connection: &Connection, asked: Result<Answer>) -> Result<Answer> {
        match asked {
            Ok(Answer::Error(error)) => Err(error.while_doing(format!("node {}", self.name))),
            Ok(answer) => Ok(answer),
            Err(error) => {
                let mut error = error;
                if let Some(reason) = connection.close_reason() {
                    self.forget(connection);
                    // A node that does not like a certificate says so when the handshake seems to be over.
                    error = refusal(&reason);
                }
                Err(error.while_doing(format!("ask node {}", self.name)))
            }
        }
    }

    async fn ask(&self, connection: &Connection, order: Order) -> Result<Answer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (mut request, mut answers) = open(connection).await?;
        let urgency = urgency(order.priority());
        request.set_priority(urgency).unwrap_or_default();
        let mut unsent = Unsent::new(&mut request);
        unsent.send(order.pack(id, self.mount)).await?;
        unsent.finish()?;
        let answer = receive_answer(&mut answers, id).await?;
        receive_end(&mut answers).await?;
        Ok(answer)
    }

    async fn ask_in_order(
        &self,
        connection: &Connection,
        mut orders: BoxStream<'_, Order>,
        silence: Duration,
    ) -> Result<Answer> {
        let (mut request, mut answers) = open(connection).await?;
        let late = |_late| Error::unavailable(format!("no answer for {silence:?}"));
        let (expect, mut expected) = mpsc::channel(AHEAD_MAX);
        let sending = async move {
            let mut unsent = Unsent::new(&mut request);
            while let Some(order) = orders.next().await {
                let Ok(room) = expect.reserve().await else { break };
                unsent.prefer(urgency(order.priority()));
                let id = self.next.fetch_add(1, Ordering::Relaxed);
                let sent = unsent.send(order.pack(id, self.mount));
                tokio::time::timeout(silence, sent).await.map_err(late)??;
                room.send(id);
            }
            unsent.finish()
        };
        let receiving = async move {
            let mut last = None;
            while let Some(id) = expected.recv().await {
                let answer = receive_answer(&mut answers, id);
                let answer = tokio::time::timeout(silence, answer).await.map_err(late)??;
                if matches!(answer, Answer::Error(_)) {
                    return Ok(answer);
                }
                last = Some(answer);
            }
            last.ok_or_else(|| Error::internal("nothing was asked"))
        };
        let (sending, receiving) = (pin!(sending), pin!(receiving));
        match select(receiving, sending).await {
            Either::Left((answer, _sending)) => answer,
            Either::Right((Ok(()), receiving)) => receiving.await,
            // A node that refuses a request does not take those behind it: its answer says why.
            Either::Right((Err(error), receiving)) => match receiving.await? {
                answer @ Answer::Error(_) => Ok(answer),
                Answer::Shard(_) | Answer::Disk(_) | Answer::Disks(_) => Err(error),
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, connection: &Connection) {
        let mut state = self.lock();
        let same = |held: &Connection| held.stable_id() == connection.stable_id();
        if matches!(&*state, State::Connected(held) if same(held)) {
            *state = State::New;
        }
    }

    async fn connection(&self) -> Result<Connection> {
        let known = self.lock().known();
        if let Some(known) = known {
            return known;
        }
        let _turn = self.connecting.lock().await;
        let (known, pause) = {
            let state = self.lock();
            (state.known(), state.next_pause())
        };
        // Another request has connected, or tried to.
        if let Some(known) = known {
            return known;
        }
        let connected = self.connect().await;
        *self.lock() = match &connected {
            Ok(connection) => State::Connected(connection.clone()),
            Err(why) => State::Broken { until: Instant::now() + pause, pause, why: why.clone() },
        };
        connected
    }

    async fn connect(&self) -> Result<Connection> {
        let work = tokio::time::timeout(HANDSHAKE, self.shake_hands()).await;
        let late = || Error::unavailable(format!("no answer for {HANDSHAKE:?}"));
        let context = || format!("connect to node {} at {}", self.name, self.address);
        work.unwrap_or_else(|_late| Err(late())).map_err(|error| error.while_doing(context()))
    }

    async fn shake_hands(&self) -> Result<Connection> {
        let found = tokio::net::lookup_host(&self.address).await;
        let found = found.map_err(|error| broken("find its address", &error))?;
        let found: Vec<SocketAddr> = found.collect();
        let mut last = Error::unavailable("the name has no address");
        for address in found {
            let connecting = self.endpoints.to(address).and_then(|endpoint| {
                let connecting = endpoint.connect_with(self.config.clone(), address, &self.name);
                connecting.map_err(|error| Error::refused(error.to_string()))
            });
            match connecting {
                Ok(connecting) => match connecting.await {
                    Ok(connection) => match check_role(&connection) {
                        Ok(()) => return Ok(connection),
                        Err(error) => last = error,
                    },
                    Err(error) => last = refusal(&error),
                },
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

async fn open(connection: &Connection) -> Result<(SendStream, RecvStream)> {
    connection.open_bi().await.map_err(|error| broken("open a stream", &error))
}

/// Receives the answer to request number `id`.
async fn receive_answer(answers: &mut RecvStream, id: u64) -> Result<Answer> {
    let header = receive_header(answers).await?;
    let header = header.ok_or_else(|| broken("receive", &"there is no answer"))?;
    if header.id != id && header.id != 0 {
        return Err(Error::corrupt("receive: the answer to another request"));
    }
    let (body, payload) = receive_rest(answers, &header).await?;
    Ok(Answer::unpack(&header, &body, payload)?)
}

/// Only nodes serve disks: others may have the name of one, and the same authority. TLS has looked at both.
fn check_role(connection: &Connection) -> Result<()> {
    let peer = peer_of(connection)?;
    if peer.role == Role::Node {
        return Ok(());
    }
    let context = format!("its certificate says {peer}, and only a node serves disks");
    connection.close(GIVEN_UP, context.as_bytes());
    Err(Error::refused(context))
}

/// Why there is no connection: a peer that turns this one away, or that is not who it should be, will do so again.
fn refusal(error: &quinn::ConnectionError) -> Error {
    use quinn::ConnectionError as E;
    let kind = match error {
        E::TransportError(_) | E::ConnectionClosed(_) | E::VersionMismatch => ErrorKind::Refused,
        E::ApplicationClosed(_) | E::Reset | E::TimedOut | E::LocallyClosed | E::CidsExhausted => {
            ErrorKind::Unavailable
        }
    };
    Error::new(kind, error.to_string())
}
