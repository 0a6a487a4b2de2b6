//! Who an end user is: by a token of the backend that is checked here, or by asking the backend.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use super::https::{Https, Request, Url, UrlError};
use crate::voice::UserId;

/// Bytes of a token of an end user.
const MAX_TOKEN: usize = 4096;
/// For the backend to answer.
const INTROSPECTION_LIMIT: Duration = Duration::from_secs(5);

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    User(UserId),
    /// Not good, or not any more.
    Nobody,
    /// The backend does not answer.
    Unknown,
}

#[derive(Clone)]
enum Check {
    /// HS256, with the user's id as `sub` and an end (`exp`).
    Shared(Arc<DecodingKey>),
    /// RFC 7662.
    Introspection { url: Url, secret: String },
}

/// How end users' tokens are checked. Without any way nobody is anybody.
#[derive(Clone, Default)]
pub struct UserTokens {
    check: Option<Check>,
    https: Https,
}

impl std::fmt::Debug for UserTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserTokens").finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct TokenClaims {
    sub: String,
}

#[derive(Deserialize)]
struct Introspected {
    #[serde(default)]
    active: bool,
    sub: Option<String>,
    user_id: Option<String>,
}

impl UserTokens {
    pub fn shared(secret: &str, https: Https) -> Self {
        Self {
            check: Some(Check::Shared(Arc::new(DecodingKey::from_secret(secret.as_bytes())))),
            https,
        }
    }

    /// `secret`: this server's own, told to the backend.
    ///
    /// # Errors
    /// Not a URL of http or https.
    pub fn introspection(url: &str, secret: &str, https: Https) -> Result<Self, UrlError> {
        let (url, secret) = (Url::parse(url)?, secret.to_owned());
        Ok(Self {
            check: Some(Check::Introspection { url, secret }),
            https,
        })
    }

    pub async fn who(&self, token: &str) -> Who {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Who::Nobody;
        }
        match &self.check {
            None => Who::Nobody,
            Some(Check::Shared(key)) => shared(token, key),
            Some(Check::Introspection { url, secret }) => {
                let asked = self.introspect(url, secret, token);
                tokio::time::timeout(INTROSPECTION_LIMIT, asked)
                    .await
                    .unwrap_or(Who::Unknown)
            }
        }
    }

    async fn introspect(&self, url: &Url, secret: &str, token: &str) -> Who {
        let escaped: String = token
            .bytes()
            .map(|byte| match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                true => char::from(byte).to_string(),
                false => format!("%{byte:02X}"),
            })
            .collect();
        let request = Request {
            content_type: "application/x-www-form-urlencoded",
            authorization: format!("Bearer {secret}"),
            body: format!("token={escaped}").into_bytes(),
        };
        match self.https.post(url, "", request).await {
            Ok((200, body)) => {
                let Ok(answer) = serde_json::from_slice::<Introspected>(&body) else {
                    return Who::Unknown;
                };
                let user = answer.sub.or(answer.user_id).filter(|_| answer.active);
                user.and_then(|user| user.parse().ok()).map_or(Who::Nobody, Who::User)
            }
            Ok((400..=499, _)) => Who::Nobody,
            Ok(_) => Who::Unknown,
            Err(error) => {
                tracing::warn!(%error, "the backend does not say whose token it is");
                Who::Unknown
            }
        }
    }
}

fn shared(token: &str, key: &DecodingKey) -> Who {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_required_spec_claims(&["exp", "sub"]);
    validation.validate_nbf = true;
    validation.validate_aud = false;
    // Short-lived tokens: a minute more would double their life.
    validation.leeway = 5;
    let claims = jsonwebtoken::decode::<TokenClaims>(token, key, &validation);
    let user = claims.ok().and_then(|data| data.claims.sub.parse().ok());
    user.map_or(Who::Nobody, Who::User)
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    use super::*;

    fn token(algorithm: Algorithm, secret: &str, claims: &serde_json::Value) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
    }

    #[tokio::test]
    async fn a_token_is_good_with_the_right_key_an_end_and_a_user() {
        let users = UserTokens::shared("shared secret", Https::default());
        let future = 4_000_000_000u64;
        let good = json!({"sub": "42", "exp": future});
        let who = async |algorithm, secret: &str, claims: serde_json::Value| {
            users.who(&token(algorithm, secret, &claims)).await
        };
        assert_eq!(
            who(Algorithm::HS256, "shared secret", good.clone()).await,
            Who::User(UserId(42))
        );
        assert_eq!(who(Algorithm::HS256, "another", good.clone()).await, Who::Nobody);
        assert_eq!(who(Algorithm::HS512, "shared secret", good).await, Who::Nobody);
        for bad in [
            json!({"sub": "42"}),
            json!({"exp": future}),
            json!({"sub": "42", "exp": 1_000_000_000}),
            json!({"sub": "42", "exp": future, "nbf": future - 1}),
            json!({"sub": "me", "exp": future}),
            json!({"sub": 42, "exp": future}),
        ] {
            assert_eq!(
                who(Algorithm::HS256, "shared secret", bad.clone()).await,
                Who::Nobody,
                "{bad}"
            );
        }
        let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiI0MiIsImV4cCI6NDAwMDAwMDAwMH0.";
        assert_eq!(users.who(none).await, Who::Nobody);
        assert_eq!(users.who("").await, Who::Nobody);
        assert_eq!(UserTokens::default().who("x").await, Who::Nobody);
    }
}
