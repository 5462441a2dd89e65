use super::{LINKS_MAX, Neighbours, UNUSED};
use crate::error::{ErrorKind, Result};
use crate::net::authority::Role;
use crate::net::gather::NodeAddress;
use crate::net::quic::listener::{Caller, Listener, Service};
use crate::net::testing::Authority;
use crate::net::tls::Identity;
use crate::net::wire::{Answer, Order};
use crate::net::{Operation, Priority, Request, Response, ShardKey};
use crate::sync::{Arc, Mutex};
use crate::types::{DiskId, Epoch, MountId, NodeId, ShardIndex, StripeId};
use futures_util::future::BoxFuture;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Answers everything, and notes who asked.
#[derive(Clone, Default)]
struct Callers(Arc<Mutex<Vec<(String, Role, MountId)>>>);

impl Service for Callers {
    fn serve<'a>(
        &'a self,
        caller: &'a Caller,
        mount: MountId,
        _order: Order,
    ) -> BoxFuture<'a, Answer> {
        let known = (caller.peer.name.clone(), caller.peer.role, mount);
        self.0.lock().unwrap().push(known);
        Box::pin(async { Answer::Shard(Response::Done) })
    }

    fn answer_bytes(&self, _order: &Order) -> u64 {
        0
    }
}

/// A node that serves until it is told to stop, and where it is.
fn serve(name: &str, identity: Identity, stop: &CancellationToken) -> (NodeAddress, Callers) {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), Arc::new(identity)).unwrap();
    let address = listener.address().unwrap().to_string();
    let (callers, stop) = (Callers::default(), stop.clone());
    let service = callers.clone();
    TaskTracker::new().spawn(async move {
        listener.run(service, stop, Duration::from_secs(1)).await;
    });
    (NodeAddress { name: name.to_owned(), address }, callers)
}

async fn ask(neighbours: &Neighbours, node: &NodeAddress) -> Result<Response> {
    let key = ShardKey { stripe: StripeId(1), index: ShardIndex(0) };
    let (disk, epoch, priority) = (DiskId(1), Epoch(1), Priority::Background);
    let request = Request { disk, epoch, priority, operation: Operation::Stat(key) };
    neighbours.reach(node)?.call(NodeId::default(), request).await
}

fn links(neighbours: &Neighbours) -> usize {
    neighbours.state().links.len()
}

#[tokio::test]
async fn a_node_asks_others_as_itself_and_forgets_whom_it_does_not_need() {
    let (authority, stop) = (Authority::new(), CancellationToken::new());
    let (alpha, callers) = serve("alpha", authority.holder("alpha", Role::Node), &stop);
    let own = Arc::new(authority.holder("beta", Role::Node));
    let neighbours = Neighbours::open(own.clone()).unwrap();
    for _request in 0..3 {
        assert!(matches!(ask(&neighbours, &alpha).await, Ok(Response::Done)));
    }
    let known = (String::from("beta"), Role::Node, MountId::default());
    assert_eq!(*callers.0.lock().unwrap(), [known.clone(), known.clone(), known]);
    assert_eq!(links(&neighbours), 1);
    // Somebody else is at this address.
    let other = NodeAddress { name: "gamma".to_owned(), ..alpha.clone() };
    let refused = ask(&neighbours, &other).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    assert_eq!(links(&neighbours), 2);
    neighbours.forget_unused(Instant::now() + UNUSED / 2);
    assert_eq!(links(&neighbours), 2);
    neighbours.forget_unused(Instant::now() + UNUSED);
    assert_eq!(links(&neighbours), 0);
    assert!(ask(&neighbours, &alpha).await.is_ok(), "it is found again");
    // Another certificate, another link.
    neighbours.set_identity(own);
    assert_eq!(links(&neighbours), 0);
    assert!(ask(&neighbours, &alpha).await.is_ok());
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn links_are_bounded() {
    let authority = Authority::new();
    let own = Arc::new(authority.holder("beta", Role::Node));
    let neighbours = Neighbours::open(own).unwrap();
    let node = |number: usize| NodeAddress {
        name: format!("n{number:03}"),
        address: "127.0.0.1:9".to_owned(),
    };
    let reach = async |number| {
        tokio::time::advance(Duration::from_millis(1)).await;
        neighbours.reach(&node(number)).unwrap();
    };
    for number in 0..LINKS_MAX {
        reach(number).await;
    }
    reach(0).await;
    reach(LINKS_MAX).await;
    assert_eq!(links(&neighbours), LINKS_MAX);
    let has = |number| neighbours.state().links.contains_key(&node(number));
    assert!(has(0) && !has(1) && has(2) && has(LINKS_MAX));
}
