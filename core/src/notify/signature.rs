//! How a message is signed: by the scheme of <https://www.standardwebhooks.com>, for which there are
//! libraries in most languages. HMAC-SHA256 over `<id>.<seconds since 1970>.<body>`, in base64.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What the scheme writes before a secret in base64.
const IN_BASE64: &str = "whsec_";

/// A secret that is shared with a receiver. Nothing shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Vec<u8>);

impl SigningKey {
    /// Reads a secret: base64 after `whsec_`, else the text as it is.
    ///
    /// # Errors
    /// One that is empty, or is not the base64 that it says it is; the error shows none of it.
    pub fn read(text: &str) -> Result<Self, String> {
        let key = match text.strip_prefix(IN_BASE64) {
            Some(encoded) => STANDARD
                .decode(encoded)
                .map_err(|_| format!("what follows {IN_BASE64} in the secret is not base64"))?,
            None => text.as_bytes().to_vec(),
        };
        if key.is_empty() {
            return Err("the secret is empty".to_owned());
        }
        Ok(Self(key))
    }

    /// The value of the header `webhook-signature` for a message that is sent at `seconds` since
    /// 1970.
    pub fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let head = format!("{id}.{seconds}.");
        format!("v1,{}", STANDARD.encode(mac(&self.0, [head.as_bytes(), body])))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// HMAC-SHA256 (RFC 2104) over the parts, one after the other.
fn mac<const PARTS: usize>(key: &[u8], parts: [&[u8]; PARTS]) -> Vec<u8> {
    // Only a key of a wrong length is refused, and of HMAC any length is right.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_vectors_of_rfc_4231_come_out() {
        let one = mac(&[0x0b; 20], [b"Hi There"]);
        assert_eq!(hex(&one), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
        let two = mac(b"Jefe", [b"what do ya want ", b"for nothing?"]);
        assert_eq!(hex(&two), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let six = mac(&[0xaa; 131], [b"Test Using Larger Than Block-Size Key - Hash Key First"]);
        assert_eq!(hex(&six), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }

    #[test]
    fn a_message_is_signed_as_the_schemes_own_example() {
        let key = SigningKey::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_wrong_secret_is_refused_and_none_is_shown() {
        assert_eq!(format!("{:?}", SigningKey::read("s3cret").unwrap()), "***");
        let torn = SigningKey::read("whsec_s3cret!").unwrap_err();
        assert!(torn.contains("base64") && !torn.contains("s3cret"), "{torn}");
        assert!(SigningKey::read("").is_err() && SigningKey::read("whsec_").is_err());
    }
}
