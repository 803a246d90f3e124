//! Through a real nginx as reverse proxy, by http and by https.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{Certificate, build, echo, free_port, listen, socket};
use sync_core::{PeerAddress, transport::SyncTransport};
use tempfile::TempDir;
use transport_http::HttpTransport;

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
        let (http, https) = (free_port(), free_port());
        let configuration = configuration(path, upstream, http, https);
        std::fs::write(path.join("nginx.conf"), configuration).unwrap();
        let process = Command::new(program)
            .args(["-e", "stderr", "-p"])
            .arg(path)
            .arg("-c")
            .arg(path.join("nginx.conf"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self { process, _folder: folder, http, https };
        // It says nothing when it is ready.
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(("127.0.0.1", https)).await.is_ok() {
                return Some(nginx);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
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
    let server = build(HttpTransport::builder());
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
    let health = common::client().get(format!("{}/v1/health", nginx.addresses()[0])).send().await.unwrap();
    assert_eq!(health.status(), 200);

    // nginx answers for a node that is gone.
    server.close().await;
    for address in nginx.addresses() {
        let error = dialler.dial(&address).await.unwrap_err();
        assert!(error.is_temporary() && error.context.contains("502"), "{error}");
    }
}
