use super::*;
use futures_util::FutureExt as _;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_others_to_close() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut bounded = Bounded { listener, room: Arc::new(Semaphore::new(1)) };
    let mut first = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    let (mut served, _peer) = bounded.accept().await;
    first.write_all(b"one").await.unwrap();
    let mut said = [0; 3];
    served.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"one");
    for _look in 0..10 {
        assert!(bounded.accept().now_or_never().is_none(), "there is no room");
        tokio::task::yield_now().await;
    }
    drop(served);
    let (mut served, _peer) = bounded.accept().await;
    served.write_all(b"two").await.unwrap();
    served.shutdown().await.unwrap();
    let mut said = Vec::new();
    second.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, b"two");
}
