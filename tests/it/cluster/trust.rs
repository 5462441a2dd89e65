//! Who gets in: certificates and roles, as a user meets them.

use super::{Cluster, ca, identity};
use crate::real::{fail, ironfs, succeed, wait};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The configuration of the volume for another identity.
fn with_identity(cluster: &Cluster, name: &str, directory: &Path) -> std::path::PathBuf {
    let own = identity(cluster.volume.root(), "desk").display().to_string();
    let text = fs::read_to_string(cluster.volume.config()).unwrap();
    let text = text.replace(&own, &directory.display().to_string());
    let path = cluster.volume.root().join(format!("{name}.toml"));
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn only_clients_of_the_volume_mount_it() {
    let mut cluster = Cluster::format("2+1", 3, 3);
    let root = cluster.volume.root().to_path_buf();
    let refuses = |cluster: &Cluster, name: &str, directory: &Path, says: &str| {
        let config = with_identity(cluster, name, directory);
        let said = fail(ironfs().arg("mount").arg(&config).arg(cluster.volume.mnt()), 2);
        assert!(said.contains(says), "{name}: {said}");
    };
    // Another authority's client.
    let other = tempfile::tempdir().unwrap();
    ca(other.path(), &["init"]);
    ca(other.path(), &["issue", "--role", "client", "--name", "desk"]);
    refuses(&cluster, "other", &identity(other.path(), "desk"), "UnknownIssuer");
    wait("the node has said so", || cluster.nodes[0].said().contains("a peer was turned away"));
    // Of the volume, and not for mounting.
    for role in ["admin", "node"] {
        ca(&root, &["issue", "--role", role, "--name", &format!("an-{role}")]);
        let directory = identity(&root, &format!("an-{role}"));
        refuses(&cluster, role, &directory, "may not do this");
        let says = format!("asked for what its role may not peer={role} an-{role}");
        assert!(cluster.nodes[0].said().contains(&says), "{}", cluster.nodes[0].said());
    }
    // None at all, or one that others can read.
    refuses(&cluster, "none", &root.join("nowhere"), "ironfs ca issue");
    let key = identity(&root, "an-admin").join("key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    refuses(&cluster, "open", &identity(&root, "an-admin"), "can be read by others");

    // A client mounts; once it is revoked, it does no more.
    ca(&root, &["issue", "--role", "client", "--name", "guest"]);
    let guest = with_identity(&cluster, "guest", &identity(&root, "guest"));
    succeed(ironfs().arg("mount").arg(&guest).arg(cluster.volume.mnt()));
    fs::write(cluster.volume.mnt().join("f"), "hello").unwrap();
    cluster.volume.umount();
    ca(&root, &["revoke", "guest"]);
    for node in &cluster.nodes {
        fs::copy(root.join("ca/revoked.pem"), identity(&root, &node.name).join("revoked.pem"))
            .unwrap();
        node.signal(Signal::HUP);
        wait("the identity was read", || node.said().contains("the identity was read anew"));
    }
    refuses(&cluster, "guest", &identity(&root, "guest"), "Revoked");
    cluster.volume.mount();
    assert_eq!(fs::read(cluster.volume.mnt().join("f")).unwrap(), b"hello");
    cluster.volume.umount();
    let listed = succeed(ironfs().args(["ca", "list", "--json", "--ca"]).arg(root.join("ca")));
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let guest = listed.as_array().unwrap().iter().find(|one| one["name"] == "guest").unwrap();
    assert!(guest["revoked"].is_i64(), "{guest}");

    // A node that shows another name than the configuration says is not believed.
    cluster.nodes[1].end(Signal::TERM);
    cluster.nodes[2].end(Signal::TERM);
    let text = fs::read_to_string(cluster.volume.config()).unwrap();
    let swapped = text
        .replace(&cluster.nodes[1].address, "X")
        .replace(&cluster.nodes[0].address, &cluster.nodes[1].address)
        .replace('X', &cluster.nodes[0].address);
    let config = root.join("swapped.toml");
    fs::write(&config, swapped).unwrap();
    fail(ironfs().arg("mount").arg(&config).arg(cluster.volume.mnt()), 2);
}

#[test]
fn authorities_refuse_what_makes_no_sense() {
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join("ca");
    let run = |words: &[&str]| {
        let mut command = ironfs();
        command.arg("ca").args(words).arg("--ca").arg(&place);
        command
    };
    let refuses = |words: &[&str], says: &str| {
        let said = fail(&mut run(words), 2);
        assert!(said.contains(says), "{words:?}: {said}");
    };
    refuses(&["list"], "`ironfs ca init` makes one");
    succeed(&mut run(&["init"]));
    refuses(&["init"], "has an authority already");
    refuses(&["issue", "--role", "king", "--name", "a"], "a role is node, client or admin");
    refuses(&["issue", "--role", "node", "--name", "A/b"], "cannot name a node");
    refuses(&["revoke", "nobody"], "holds no certificate");
    succeed(&mut run(&["issue", "--role", "node", "--name", "a"]));
    refuses(&["issue", "--role", "node", "--name", "a"], "has an identity already");
    for file in ["key.pem", "issued/a/key.pem"] {
        let mode = fs::metadata(place.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    succeed(&mut run(&["revoke", "a"]));
    succeed(&mut run(&["issue", "--role", "node", "--name", "b"]));
    assert!(place.join("issued/b/revoked.pem").exists(), "new holders know who was revoked");
}
