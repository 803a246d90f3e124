//! The conformance suite of transports, over HTTP and over HTTPS.

mod common;

mod b15_http {
    sync_core::transport_suite!(crate::common::HttpFactory::plain());
}

mod b15_https {
    sync_core::transport_suite!(crate::common::HttpFactory::tls());
}
