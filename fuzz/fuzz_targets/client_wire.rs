//! Bytes from a client: greeting, request. Whatever is understood is told again by the same bytes.
#![no_main]

use banger::wire::codec::{decode, encode};
use banger::wire::hello::{BYTES, DAEMON, Hello};
use banger::wire::reply::Reply;
use banger::wire::request::Envelope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(greeting) = bytes.first_chunk::<BYTES>() {
        let _ = DAEMON.answer(&Hello::decode(greeting));
    }
    if let Ok(envelope) = decode::<Envelope>(bytes) {
        assert_eq!(decode::<Envelope>(&encode(&envelope).unwrap()).unwrap(), envelope);
    }
    if let Ok(reply) = decode::<Reply>(bytes) {
        assert_eq!(decode::<Reply>(&encode(&reply).unwrap()).unwrap(), reply);
    }
});
