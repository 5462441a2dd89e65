//! Connections between machines: QUIC (RFC 9000) with mutual TLS, a stream for each request. Knows messages as bytes, and
//! no disk.
//!
//! A peer without a certificate of the volume's authority never gets past the handshake. A request that is cancelled
//! resets its stream; neither end uses a stream twice.

use super::tls::PeerIdentity;
use super::wire::{HEADER_BYTES, Header, PAYLOAD_BYTES_MAX, Packed};
use crate::error::{Error, Result};
use crate::sync::Arc;
use bytes::{Bytes, BytesMut};
use quinn::congestion::CubicConfig;
use quinn::{
    AckFrequencyConfig, Connection, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    ReadExactError, RecvStream, SendStream, TransportConfig, VarInt,
};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

pub mod link;
pub mod listener;
#[cfg(test)]
pub(crate) mod tests;

/// A connection on which nothing comes is dead.
const IDLE: Duration = Duration::from_secs(6);
/// How often an idle connection says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// Requests under way on one connection.
const STREAMS_MAX: u32 = 1024;
/// Window of one stream: a few cells.
const STREAM_WINDOW: u32 = 16 << 20;
/// Bytes that may be under way to a peer that does not read.
const SEND_WINDOW: u64 = 64 << 20;
/// Bytes that a peer may have under way to here.
const RECEIVE_WINDOW: u32 = 128 << 20;
/// Round trip assumed of a local network.
const INITIAL_RTT: Duration = Duration::from_millis(1);
/// Packets up to this size are tried: up to ten of them are handed to the kernel together (segmentation offload), which refuses
/// what is larger than 65 507 bytes in all. The library takes a refusal for a loss, and after some it goes back to the
/// smallest packets for a minute.
const MTU_MAX: u16 = 6_500;
/// Packets that are acknowledged together.
const ACK_THRESHOLD: u32 = 16;
/// How long an acknowledgement may be kept back: the least that the protocol allows, because a sender may be waiting for its
/// window.
const ACK_DELAY: Duration = Duration::from_millis(1);
/// Bytes that may be sent before anything is acknowledged: one request of some cells.
const INITIAL_WINDOW: u64 = 512 << 10;
/// Buffers of a socket: beyond the limits of the system (net.core.rmem_max, net.core.wmem_max) where that is allowed, which
/// takes CAP_NET_ADMIN.
const SOCKET_BYTES: usize = 8 << 20;
/// Code with which a stream is reset whose caller has gone.
const GIVEN_UP: VarInt = VarInt::from_u32(1);

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(MTU_MAX);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_THRESHOLD)).max_ack_delay(Some(ACK_DELAY));
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW);
    transport
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .send_fairness(false)
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(discovery))
        .ack_frequency_config(Some(acks))
        .congestion_controller_factory(Arc::new(congestion))
        .datagram_receive_buffer_size(None);
    Arc::new(transport)
}

fn endpoint_config() -> Result<EndpointConfig> {
    let mut config = EndpointConfig::default();
    config
        .max_udp_payload_size(MTU_MAX)
        .map_err(|error| Error::internal(format!("size of packets: {error}")))?;
    Ok(config)
}

/// A UDP socket with buffers for a fast network.
fn socket(address: SocketAddr) -> Result<std::net::UdpSocket> {
    let refused = |error| Error::refused(format!("open UDP port {address}: {error}"));
    let socket = std::net::UdpSocket::bind(address).map_err(refused)?;
    let options = socket2::SockRef::from(&socket);
    let receive = set_socket_recv_buffer_size_force(&socket, SOCKET_BYTES)
        .or_else(|_not_allowed| options.set_recv_buffer_size(SOCKET_BYTES));
    for (what, set) in [("receive", receive), ("send", options.set_send_buffer_size(SOCKET_BYTES))]
    {
        if let Err(error) = set {
            tracing::warn!(%error, "the {what} buffer of the network stays small");
        }
    }
    Ok(socket)
}

/// Sends a message.
async fn send(stream: &mut SendStream, packed: Packed) -> Result<()> {
    let mut chunks = packed.chunks();
    stream.write_all_chunks(&mut chunks).await.map_err(|error| broken("send", &error))
}

/// Receives a header; None if the stream has ended before it.
async fn receive_header(stream: &mut RecvStream) -> Result<Option<Header>> {
    let mut bytes = [0; HEADER_BYTES];
    match stream.read_exact(&mut bytes).await {
        Ok(()) => Ok(Some(Header::decode(&bytes)?)),
        Err(ReadExactError::FinishedEarly(0)) => Ok(None),
        Err(error) => Err(broken("receive", &error)),
    }
}

/// Receives what belongs to a header: body and payload.
async fn receive_rest(stream: &mut RecvStream, header: &Header) -> Result<(Bytes, Bytes)> {
    let body = u64::from(header.body_bytes);
    let all = body + header.payload_bytes.min(PAYLOAD_BYTES_MAX);
    let mut rest = receive_bytes(stream, usize::try_from(all).unwrap_or(0)).await?;
    let body = rest.split_to(usize::try_from(body).unwrap_or(0));
    Ok((body, rest))
}

/// Receives the end of the stream, and nothing before it.
async fn receive_end(stream: &mut RecvStream) -> Result<()> {
    match stream.read_chunk(1, true).await {
        Ok(None) => Ok(()),
        Ok(Some(_more)) => Err(Error::corrupt("receive: there is more than the header says")),
        Err(error) => Err(broken("receive", &error)),
    }
}

async fn receive_bytes(stream: &mut RecvStream, count: usize) -> Result<Bytes> {
    let mut bytes = BytesMut::with_capacity(count);
    while bytes.len() < count {
        let chunk = stream.read_chunk(count - bytes.len(), true).await;
        let chunk = chunk.map_err(|error| broken("receive", &error))?;
        let chunk = chunk.ok_or_else(|| broken("receive", &"the message is cut off"))?;
        bytes.extend_from_slice(&chunk.bytes);
    }
    Ok(bytes.freeze())
}

fn broken(doing: &str, error: &impl fmt::Display) -> Error {
    Error::unavailable(format!("{doing}: {error}"))
}

/// What the certificate of the other end says, which TLS has verified.
fn peer_of(connection: &Connection) -> Result<PeerIdentity> {
    let unknown = || Error::refused("the peer shows no certificate");
    let identity = connection.peer_identity().ok_or_else(unknown)?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>();
    let chain = chain.map_err(|_other| unknown())?;
    PeerIdentity::of(chain.first().ok_or_else(unknown)?)
}

/// The stream of an urgent message goes first: 0 is the least urgent.
const fn urgency(priority: u8) -> i32 {
    2 - priority as i32
}

/// Resets a stream whose messages were not sent to their end: dropping it would end it as if they were whole.
struct Unsent<'a>(Option<&'a mut SendStream>);

impl<'a> Unsent<'a> {
    const fn new(stream: &'a mut SendStream) -> Self {
        Self(Some(stream))
    }

    /// Has the stream go before those with a lower number. It may be closed already.
    fn prefer(&self, urgency: i32) {
        if let Some(stream) = &self.0 {
            stream.set_priority(urgency).unwrap_or_default();
        }
    }

    async fn send(&mut self, packed: Packed) -> Result<()> {
        match &mut self.0 {
            Some(stream) => send(stream, packed).await,
            None => Err(Error::internal("send: the stream has ended")),
        }
    }

    /// More may be sent later: what was sent so far is whole.
    fn keep(mut self) {
        self.0 = None;
    }

    /// Ends the stream's direction: all messages are whole.
    fn finish(mut self) -> Result<()> {
        match self.0.take() {
            Some(stream) => stream.finish().map_err(|error| broken("send", &error)),
            None => Ok(()),
        }
    }
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            // It may be closed already.
            stream.reset(GIVEN_UP).unwrap_or_default();
        }
    }
}
