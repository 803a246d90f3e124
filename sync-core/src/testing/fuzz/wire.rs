//! Messages.

use bytes::Bytes;

use crate::{
    machine::wire::{Message, decode_bundles, encode_bundles},
    model::{Bundle, Ticket},
};

/// Decodes the bytes as all that a stranger may send, and forgets it: its memory is measured.
pub fn decode(data: &[u8]) {
    drop(Message::decode(Bytes::copy_from_slice(data)));
    drop(decode_bundles(data));
    drop(std::str::from_utf8(data).map(str::parse::<Ticket>));
}

/// Whatever decodes encodes to bytes that decode to the same: encoding a message is a function of the message. What was
/// read may be longer, for a number may be written longer than it need be (PROTOCOL.md, section 1.1).
pub fn messages(data: &[u8]) {
    if let Ok(bundles) = decode_bundles(data) {
        same_bundles(bundles);
    }
    let Ok(Some(message)) = Message::decode(Bytes::copy_from_slice(data)) else { return };
    let frame = message.encode();
    let again = Message::decode(frame.clone()).expect("what was encoded can be decoded").expect("its kind is known");
    assert_eq!(again, message, "decoding what was encoded gives the same message");
    assert_eq!(again.encode(), frame, "a message has one encoding");
    assert_eq!(frame[0], data[0], "the kind stays");
    assert!(frame.len() <= data.len(), "and nothing is said longer than it was");
    if let Message::Entries(_, bundles) = &message
        && let Ok(bundles) = decode_bundles(bundles)
    {
        same_bundles(bundles);
    }
}

fn same_bundles(bundles: Vec<Bundle>) {
    let bytes = encode_bundles(&bundles);
    assert_eq!(decode_bundles(&bytes).expect("what was encoded can be decoded"), bundles);
}
