//! Bearer tokens of calls that are served natively; those of servicers are checked in Python.

use std::collections::HashMap;

use arc_swap::ArcSwapOption;
use http::HeaderMap;
use ring::digest::{SHA256, digest};

use crate::grpc::status::{Code, Status};

/// The SHA-256 hash of a token.
pub type Hash = [u8; 32];

/// The known tokens; replaced as a whole. No token is required until they are set.
#[derive(Default)]
pub struct Tokens {
    /// Maps the hash of a token to whether it permits inference.
    known: ArcSwapOption<HashMap<Hash, bool>>,
}

impl Tokens {
    /// Requires one of these tokens from now on.
    pub fn set(&self, known: HashMap<Hash, bool>) {
        self.known.store(Some(known.into()));
    }

    /// Checks whether an inference call is authorized.
    ///
    /// Returns the hash of the caller's token; None if no token is required. Hashes are compared, so that the timing
    /// reveals nothing about the tokens.
    pub fn check(&self, headers: &HeaderMap) -> Result<Option<Hash>, Status> {
        let known = self.known.load();
        let Some(known) = known.as_ref() else { return Ok(None) };
        // Several headers are ambiguous, since some readers take the first and others the last: none is accepted.
        let mut given = headers.get_all("authorization").iter();
        let given = given.next().filter(|_| given.next().is_none());
        let token = given.and_then(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
        });
        let permitted = token.and_then(|token| known.get_key_value(digest(&SHA256, token).as_ref()));
        match permitted {
            Some((hash, true)) => Ok(Some(*hash)),
            Some((_, false)) => {
                let message = "the token does not permit this call; it needs the permission infer";
                Err(Status::new(Code::PermissionDenied, message))
            }
            None => {
                let message = "expected the metadata authorization: Bearer TOKEN, once, with a token that this server accepts";
                Err(Status::new(Code::Unauthenticated, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tokens: &Tokens, authorization: &str) -> Option<Code> {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", authorization.parse().unwrap());
        tokens.check(&headers).err().map(|status| status.code)
    }

    #[test]
    fn a_call_needs_a_token_that_permits_it() {
        let tokens = Tokens::default();
        assert!(tokens.check(&HeaderMap::new()).is_ok());
        let hash = |token: &str| digest(&SHA256, token.as_bytes()).as_ref().try_into().unwrap();
        tokens.set(HashMap::from([(hash("good"), true), (hash("reader"), false)]));
        assert_eq!(check(&tokens, "Bearer good"), None);
        assert_eq!(check(&tokens, "bearer good"), None);
        assert_eq!(check(&tokens, "Bearer reader"), Some(Code::PermissionDenied));
        for wrong in ["Bearer bad", "Bearer ", "Basic good", "good", ""] {
            assert_eq!(check(&tokens, wrong), Some(Code::Unauthenticated), "{wrong}");
        }
        assert_eq!(tokens.check(&HeaderMap::new()).unwrap_err().code, Code::Unauthenticated);
        let mut several = HeaderMap::new();
        several.append("authorization", "Bearer good".parse().unwrap());
        several.append("authorization", "Bearer good".parse().unwrap());
        assert_eq!(tokens.check(&several).unwrap_err().code, Code::Unauthenticated);
    }
}
