//! The end that asks: the way to one node, connected when it is needed, and again after a break. Knows no disk.

use super::{
    GIVEN_UP, HANDSHAKE, Unsent, broken, endpoint_config, peer_of, receive_header, receive_rest,
    socket, transport, urgency,
};
use crate::error::{Error, ErrorKind, Result};
use crate::net::authority::Role;
use crate::net::tls::Identity;
use crate::net::wire::{Answer, Order};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::MountId;
use quinn::{ClientConfig, Connection, Endpoint};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Pause before the second try to connect; each further one waits twice as long ...
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// ... up to this.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The way to one node. Must be used where its endpoint's runtime lives, or from any other one.
pub struct Link {
    endpoints: Endpoints,
    config: ClientConfig,
    /// Name that its certificate must have.
    name: String,
    /// `host:port`.
    address: String,
    mount: MountId,
    state: tokio::sync::Mutex<State>,
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
        let (state, next) = (tokio::sync::Mutex::new(State::New), AtomicU64::new(1));
        Ok(Self { endpoints, config, name, address, mount, state, next })
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
        match self.ask(&connection, order).await {
            Ok(Answer::Error(error)) => Err(error.while_doing(format!("node {}", self.name))),
            Ok(answer) => Ok(answer),
            Err(error) => {
                let mut error = error;
                if let Some(reason) = connection.close_reason() {
                    self.forget(&connection).await;
                    // A node that does not like a certificate says so when the handshake seems to be over.
                    error = refusal(&reason);
                }
                Err(error.while_doing(format!("ask node {}", self.name)))
            }
        }
    }

    async fn ask(&self, connection: &Connection, order: Order) -> Result<Answer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let opened = connection.open_bi().await;
        let (mut request, mut answers) = opened.map_err(|error| broken("open a stream", &error))?;
        let urgency = urgency(order.priority());
        request.set_priority(urgency).unwrap_or_default();
        Unsent::send(&mut request, order.pack(id, self.mount)).await?;
        let header = receive_header(&mut answers).await?;
        if header.id != id && header.id != 0 {
            return Err(Error::corrupt("receive: the answer to another request"));
        }
        let (body, payload) = receive_rest(&mut answers, &header).await?;
        Ok(Answer::unpack(&header, &body, payload)?)
    }

    async fn forget(&self, connection: &Connection) {
        let mut state = self.state.lock().await;
        let same = |held: &Connection| held.stable_id() == connection.stable_id();
        if matches!(&*state, State::Connected(held) if same(held)) {
            *state = State::New;
        }
    }

    async fn connection(&self) -> Result<Connection> {
        let mut state = self.state.lock().await;
        let pause = match &*state {
            State::Connected(connection) if connection.close_reason().is_none() => {
                return Ok(connection.clone());
            }
            State::Broken { until, pause, why } => {
                if Instant::now() < *until {
                    return Err(why.clone());
                }
                (*pause * 2).min(BACKOFF_MAX)
            }
            State::Connected(_) | State::New => BACKOFF_MIN,
        };
        match self.connect().await {
            Ok(connection) => {
                *state = State::Connected(connection.clone());
                Ok(connection)
            }
            Err(why) => {
                let until = Instant::now() + pause;
                *state = State::Broken { until, pause, why: why.clone() };
                Err(why)
            }
        }
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
