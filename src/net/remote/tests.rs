use super::{Nodes, is_loopback};
use crate::error::ErrorKind;
use crate::net::authority::Role;
use crate::net::quic::tests::Node;
use crate::net::testing::Authority;
use crate::types::MountId;
use std::collections::BTreeMap;
use std::net::UdpSocket;

fn known(nodes: &[(&str, &Node)]) -> BTreeMap<String, String> {
    let place = |(name, node): &(&str, &Node)| ((*name).to_owned(), node.address().to_string());
    nodes.iter().map(place).collect()
}

fn start(authority: &Authority, known: &BTreeMap<String, String>) -> Nodes {
    Nodes::start(authority.holder("desk", Role::Client), MountId(5), known).unwrap()
}

/// On several threads, because to open a disk blocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_learnt_while_others_are_used() {
    let authority = Authority::new();
    let node = |name: &str| Node::start(authority.holder(name, Role::Node));
    let (alpha, beta) = (node("alpha"), node("beta"));
    let nodes = start(&authority, &known(&[("alpha", &alpha)]));
    // They serve nothing: whoever says so was asked.
    let said = |name: &str| nodes.open(name, "/srv/d0").err().unwrap().to_string();
    assert!(said("alpha").contains("node alpha serves"), "{}", said("alpha"));
    assert!(said("beta").contains("`ironfs node add VOLUME beta=HOST:PORT`"), "{}", said("beta"));
    let unknown = nodes.look("beta").await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Refused, "{unknown}");
    nodes.learn("beta", &beta.address().to_string()).unwrap();
    assert!(said("beta").contains("node beta serves"), "{}", said("beta"));
    nodes.look("beta").await.unwrap();
    assert_eq!(nodes.addresses(), known(&[("alpha", &alpha), ("beta", &beta)]));
    // It moves.
    let moved = node("beta");
    beta.end().await;
    nodes.learn("beta", &moved.address().to_string()).unwrap();
    assert!(said("beta").contains("node beta serves"), "{}", said("beta"));
    assert_eq!(nodes.addresses(), known(&[("alpha", &alpha), ("beta", &moved)]));
    alpha.end().await;
    moved.end().await;
}

#[tokio::test]
async fn a_look_at_an_address_takes_nobody_for_the_node_who_is_not() {
    let (authority, other) = (Authority::new(), Authority::new());
    let alpha = Node::start(authority.holder("alpha", Role::Node));
    let client = Node::start(authority.holder("beta", Role::Client));
    let foreign = Node::start(other.holder("beta", Role::Node));
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let nodes = start(&authority, &BTreeMap::new());
    let address = |node: &Node| node.address().to_string();
    nodes.look_at("alpha", &address(&alpha)).await.unwrap();
    let refused = ErrorKind::Refused;
    for (at, kind, says) in [
        (address(&alpha), refused, "not valid for name"),
        (address(&client), refused, "its certificate says client beta"),
        (address(&foreign), refused, "invalid peer certificate"),
        (silent.local_addr().unwrap().to_string(), ErrorKind::Unavailable, "no answer for 3s"),
    ] {
        let error = nodes.look_at("beta", &at).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let said = error.to_string();
        assert!(said.contains(says) && said.contains(&format!("node beta at {at}")), "{said}");
    }
    assert!(nodes.addresses().is_empty(), "to look is not to learn");
    for node in [alpha, client, foreign] {
        node.end().await;
    }
}

#[test]
fn nodes_on_loopback_are_on_this_machine() {
    for address in ["127.0.0.1:7440", "127.3.0.1:1", "[::1]:7440", "localhost:7440"] {
        assert!(is_loopback(address), "{address}");
    }
    for address in ["10.0.0.2:7440", "[fd00::2]:7440", "attic:7440"] {
        assert!(!is_loopback(address), "{address}");
    }
}
