//! Through a real nginx as reverse proxy, by http and by https.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use common::{Certificate, build, echo, listen, socket};
use sync_core::{
    PeerAddress,
    manager::{Access, SyncManager},
    model::ReplicaId,
    transport::SyncTransport,
};
use tempfile::TempDir;
use transport_http::{
    HttpTransport,
    testing::node::{NOTES, Node},
};

/// An nginx of our own, killed when dropped.
struct Nginx {
    process: Child,
    _folder: TempDir,
    http: u16,
    https: u16,
}

impl Nginx {
    /// Starts it in front of `upstream`, or says that it is not installed.
    async fn start(upstream: std::net::SocketAddr, tls: &Certificate) -> Option<Self> {
        let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx", "/opt/homebrew/bin/nginx"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        let Some(program) = program else {
            sync_core::testing::skipped("nginx is not installed");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::write(path.join("certificate.pem"), &tls.certificate).unwrap();
        std::fs::write(path.join("key.pem"), &tls.key).unwrap();
        // Somebody else may take one of the ports before nginx does. Then it ends, and others are tried.
        for _ in 0..5 {
            // Both are held while they are chosen, so that they differ.
            let held = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
            let [http, https] = held.each_ref().map(|port| port.local_addr().unwrap().port());
            drop(held);
            std::fs::write(path.join("nginx.conf"), configuration(path, upstream, http, https)).unwrap();
            let mut process = Command::new(program)
                .args(["-e", "stderr", "-p"])
                .arg(path)
                .arg("-c")
                .arg(path.join("nginx.conf"))
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            // It says nothing when it is ready, but writes its number down when it has both ports.
            for _ in 0..200 {
                if path.join("pid").exists() && tokio::net::TcpStream::connect(("127.0.0.1", https)).await.is_ok() {
                    return Some(Self { process, _folder: folder, http, https });
                }
                if process.try_wait().unwrap().is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            process.kill().ok();
            process.wait().ok();
        }
        panic!("nginx does not start");
    }

    fn addresses(&self) -> [PeerAddress; 2] {
        let http = format!("http://127.0.0.1:{}/notes", self.http);
        let https = format!("https://localhost:{}/notes", self.https);
        [http.parse().unwrap(), https.parse().unwrap()]
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// What the README tells people to write, and what a test in a folder of its own needs beside it.
fn configuration(path: &Path, upstream: std::net::SocketAddr, http: u16, https: u16) -> String {
    let path = path.display();
    format!(
        "daemon off;
master_process off;
pid {path}/pid;
error_log stderr error;
events {{}}
http {{
    access_log off;
    client_body_temp_path {path}/body;
    proxy_temp_path {path}/proxy;
    fastcgi_temp_path {path}/fastcgi;
    uwsgi_temp_path {path}/uwsgi;
    scgi_temp_path {path}/scgi;
    server {{
        listen 127.0.0.1:{http};
        listen 127.0.0.1:{https} ssl;
        ssl_certificate {path}/certificate.pem;
        ssl_certificate_key {path}/key.pem;
        location /notes/ {{
            proxy_pass http://{upstream}/;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header Host $host;
            proxy_read_timeout 1h;
        }}
    }}
}}
"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sync_and_rest_pass_through_nginx_by_http_and_by_https() {
    let tls = Certificate::new();
    let server = build(HttpTransport::builder().rest(Arc::new(Node::new())));
    let (direct, mut accepted) = listen(&server).await;
    let Some(nginx) = Nginx::start(socket(&direct[0]), &tls).await else { return };
    let dialler = build(HttpTransport::builder().client_only().root_certificates(&*tls.certificate));
    for address in nginx.addresses() {
        for _ in 0..3 {
            echo(&dialler, &address, &mut accepted).await;
        }
        let connection = dialler.dial(&address).await.unwrap();
        let there = accepted.recv().await.unwrap();
        drop(connection);
        common::soon(there.closed()).await;
    }
    let client = common::client_trusting(&tls);
    for address in nginx.addresses() {
        let at = |path: &str| client.get(format!("{address}/v1/{path}"));
        assert_eq!(at("health").send().await.unwrap().status(), 200);
        let value = format!("replicas/{}/values/large", ReplicaId::from(NOTES));
        assert_eq!(at(&value).send().await.unwrap().status(), 401, "{address}: a proxy opens nothing");
        let part = at(&value).bearer_auth("notes").header("range", "bytes=250000-250999").send().await.unwrap();
        assert_eq!(part.status(), 206, "{address}");
        assert_eq!(part.headers()["content-range"], "bytes 250000-250999/300000");
        let large = &Node::new().keys[3].1;
        assert_eq!(part.bytes().await.unwrap(), large.slice(250_000..251_000));
        let whole = at(&value).bearer_auth("all").send().await.unwrap().bytes().await.unwrap();
        assert!(whole == *large, "{address}: {} bytes", whole.len());
    }

    // nginx answers for a node that is gone.
    server.close().await;
    for address in nginx.addresses() {
        let error = dialler.dial(&address).await.unwrap_err();
        assert!(error.is_temporary() && error.context.contains("502"), "{error}");
    }
}

/// A node over HTTP. Only the one that listens can be reached.
async fn node(builder: transport_http::HttpBuilder) -> SyncManager {
    let node = SyncManager::builder(Arc::new(store_mem::open().unwrap())).spawn().await.unwrap();
    node.register_transport("http", builder).await.unwrap();
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b17_two_nodes_become_equal_and_stay_so_through_nginx_by_http_and_by_https() {
    let tls = Certificate::new();
    let server = node(HttpTransport::builder().bind("127.0.0.1:0".parse().unwrap())).await;
    let direct = server.accept_connections().await.unwrap().addresses;
    let Some(nginx) = Nginx::start(socket(&direct[0]), &tls).await else { return };
    let notes = server.create_replica().await.unwrap();
    let photo: Vec<u8> = (0..2_000_000u32).map(|i| (i.wrapping_mul(i) >> 9) as u8).collect();
    notes.put("photo", photo.clone()).await.unwrap();
    for address in nginx.addresses() {
        let far = node(HttpTransport::builder().client_only().root_certificates(&*tls.certificate)).await;
        let mut ticket = notes.share(Access::WRITE).await.unwrap();
        ticket.addresses = vec![address.clone()];
        let copy = far.join(ticket).await.unwrap();
        far.wait_synced(copy.id(), server.node_id(), Duration::from_secs(20)).await.unwrap();
        let here = |status: &sync_core::manager::Status| status.replicas[0].blobs_missing == 0;
        far.status_when(Duration::from_secs(20), here).await.unwrap();
        assert!(copy.read("photo").await.unwrap().unwrap() == photo, "{address}");
        // Live, both ways.
        let (mut there, mut back) = (notes.watch("far", notes.head()), copy.watch("near", copy.head()));
        copy.put("far", address.as_str().to_owned()).await.unwrap();
        common::soon(there.next()).await.unwrap();
        notes.put("near", "x").await.unwrap();
        common::soon(back.next()).await.unwrap();
        let status = far.status().await.unwrap();
        assert_eq!(status.replicas[0].peers[0].address.as_ref(), Some(&address), "it went through nginx");
        far.shutdown(Duration::from_secs(30)).await.unwrap();
    }
}
