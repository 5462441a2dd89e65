use super::*;
use futures_util::FutureExt;

#[test]
fn large_stripes_are_bounded_and_small_ones_pass_them() {
    let lanes = Lanes::new(2);
    let large = SMALL_STRIPE_BYTES + 1;
    let enter = |bytes| lanes.enter(bytes).now_or_never().map(Result::unwrap);
    let held = [enter(large), enter(large)];
    assert!(held.iter().all(Option::is_some));
    assert!(enter(large).is_none(), "a third large stripe");
    let small: Vec<_> = (0..SMALL_STRIPES_MAX).map(|_| enter(SMALL_STRIPE_BYTES)).collect();
    assert!(small.iter().all(Option::is_some));
    assert!(enter(1).is_none(), "one small stripe too many");
    drop(held);
    assert!(enter(large).is_some());
}
