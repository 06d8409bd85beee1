//! etcd with a member down, with TLS and with authentication: the fleet goes on, and wrong
//! credentials are told without being shown.

use system_tests::stack::{Options, Stack};

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_cluster_are_killed_started_and_frozen_one_by_one() {
    let options = Options {
        etcd_nodes: 3,
        etcd_arguments: vec!["--quota-backend-bytes=67108864".into()],
        ..Options::default()
    };
    let mut stack = Stack::start_with(&options).await.unwrap();
    let leader = stack.etcd_leader().await.unwrap();
    stack.kill_etcd_member(leader).unwrap();
    let next = stack.etcd_leader().await.unwrap();
    assert_ne!(next, leader);
    stack.start_etcd_member(leader).await.unwrap();
    stack.pause_etcd_member(next).unwrap();
    let third = stack.etcd_leader().await.unwrap();
    assert_ne!(third, next);
    stack.resume_etcd_member(next).unwrap();
    assert_eq!((stack.members(), stack.etcd_member_urls().len()), (3, 3));
}
