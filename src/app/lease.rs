//! The lease that a `redis` section asks for: what the configuration says, as the store takes it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::config::{Config, RedisConfig, RedisTlsConfig};
use super::serve::ServeError;
use crate::node::new_id;
use crate::store::{Lease, RedisSettings, Sentinel};
use crate::tls::{TlsError, Trust, certificates};

#[derive(Debug, thiserror::Error)]
pub enum RedisConfigError {
    #[error(
        "redis.tls.insecure is not supported: redis.tls.ca_cert_file names the authority of the server's certificate"
    )]
    Insecure,
    #[error("redis.tls: {0}")]
    Tls(#[from] TlsError),
    #[error("cannot read the machine's name: {0}")]
    Name(#[from] io::Error),
}

/// None without a Redis. Waits while another node may hold the lease.
///
/// # Errors
/// Another node is there, or no Redis.
pub(super) async fn take(config: &Config) -> Result<Option<Lease>, ServeError> {
    let Some(settings) = settings(&config.redis)? else {
        return Ok(None);
    };
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").map_err(RedisConfigError::Name)?;
    let id = new_id("ND_");
    let holder = format!("{id} on {} (process {})", machine.trim(), std::process::id());
    let lease = Lease::take(settings, holder).await?;
    tracing::warn!("redis: one node at a time serves with it; this one does now");
    Ok(Some(lease))
}

pub(super) fn settings(config: &RedisConfig) -> Result<Option<RedisSettings>, RedisConfigError> {
    let sentinel = (!config.sentinel_master_name.is_empty()).then(|| Sentinel {
        master: config.sentinel_master_name.clone(),
        username: config.sentinel_username.clone(),
        password: config.sentinel_password.clone(),
    });
    let addresses = match &sentinel {
        Some(_) => config.sentinel_addresses.clone(),
        None if !config.cluster_addresses.is_empty() => config.cluster_addresses.clone(),
        None if config.address.is_empty() => Vec::new(),
        None => vec![config.address.clone()],
    };
    if addresses.is_empty() {
        return Ok(None);
    }
    let tls = (config.tls.enabled || config.use_tls)
        .then(|| tls(&config.tls))
        .transpose()?;
    Ok(Some(RedisSettings {
        addresses,
        username: config.username.clone(),
        password: config.password.clone(),
        // A cluster has one database only.
        database: if config.cluster_addresses.is_empty() {
            config.db
        } else {
            0
        },
        tls: tls.map(|tls| (tls, config.tls.server_name.clone())),
        sentinel,
        dial_limit: Duration::from_millis(config.dial_timeout),
        answer_limit: Duration::from_millis(config.read_timeout),
    }))
}

fn tls(config: &RedisTlsConfig) -> Result<Arc<ClientConfig>, RedisConfigError> {
    if config.insecure {
        return Err(RedisConfigError::Insecure);
    }
    let builder = crate::tls::config(Trust::only_or_machine(&config.ca_cert_file))?;
    let built = if config.client_cert_file.is_empty() {
        builder.with_no_client_auth()
    } else {
        let path = &config.client_key_file;
        let key = PrivateKeyDer::from_pem_file(Path::new(path)).map_err(|error| TlsError::File {
            path: path.clone(),
            error,
        })?;
        let chain = certificates(&config.client_cert_file)?;
        builder.with_client_auth_cert(chain, key).map_err(TlsError::from)?
    };
    Ok(Arc::new(built))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_without_addresses_asks_for_nothing() {
        assert!(settings(&RedisConfig::default()).unwrap().is_none());
        let named = RedisConfig {
            password: "secret".into(),
            ..RedisConfig::default()
        };
        assert!(settings(&named).unwrap().is_none());
        assert!(!format!("{named:?}").contains("secret"));
    }

    #[test]
    fn sentinels_and_clusters_are_asked_in_their_own_way() {
        let sentinels = RedisConfig {
            address: "ignored:1".into(),
            sentinel_master_name: "main".into(),
            sentinel_addresses: vec!["a:1".into(), "b:1".into()],
            ..RedisConfig::default()
        };
        let found = settings(&sentinels).unwrap().unwrap();
        assert_eq!(
            (found.addresses.len(), found.sentinel.unwrap().master),
            (2, "main".into())
        );
        let cluster = RedisConfig {
            cluster_addresses: vec!["a:1".into()],
            db: 3,
            ..RedisConfig::default()
        };
        assert_eq!(settings(&cluster).unwrap().unwrap().database, 0);
    }

    #[test]
    fn nobodys_certificate_is_taken_unseen() {
        let config = RedisConfig {
            address: "a:1".into(),
            tls: RedisTlsConfig {
                enabled: true,
                insecure: true,
                ..RedisTlsConfig::default()
            },
            ..RedisConfig::default()
        };
        assert!(matches!(settings(&config), Err(RedisConfigError::Insecure)));
    }
}
