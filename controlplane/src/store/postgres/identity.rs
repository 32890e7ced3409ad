//! The CA, join tokens and certificates.

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{
    Postgres, audit, rows,
    session::{BEGIN, Name, Session},
};
use crate::store::{
    AuditRow, StoreError,
    identity::{
        Attempt, CaRow, CertificateRow, IdentityNews, IdentityStore, JoinTokenRow, Turned,
        may_renew, sql,
    },
};

impl IdentityStore for Postgres {
    fn ca(&self) -> BoxFuture<'_, Result<Option<CaRow>, StoreError>> {
        Box::pin(async move {
            let rows = self.read(sqlx::query(sql::CA)).await?;
            rows.first().map(|row| ca(row, self.name())).transpose()
        })
    }

    fn add_ca(&self, ca: CaRow) -> BoxFuture<'_, Result<CaRow, StoreError>> {
        Box::pin(async move {
            let query = sqlx::query(sql::ADD_CA).bind(ca.certificate);
            self.execute(query.bind(ca.private_key)).await?;
            let kept = self.ca().await?;
            kept.ok_or_else(|| self.name().damaged("the CA is gone"))
        })
    }

    fn reseal_ca(&self, was: Vec<u8>, now: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let query = sqlx::query(sql::RESEAL_CA).bind(was).bind(now);
            self.execute(query).await.map(drop)
        })
    }

    fn join_tokens(&self) -> BoxFuture<'_, Result<Vec<JoinTokenRow>, StoreError>> {
        Box::pin(async move {
            let rows = self.read(sqlx::query(sql::TOKENS)).await?;
            rows.iter().map(|row| token(row, self.name())).collect()
        })
    }

    fn join_token(&self, id: String) -> BoxFuture<'_, Result<Option<JoinTokenRow>, StoreError>> {
        Box::pin(async move {
            let rows = self.read(sqlx::query(sql::TOKEN).bind(id)).await?;
            rows.first().map(|row| token(row, self.name())).transpose()
        })
    }

    fn add_join_token(
        &self,
        token: JoinTokenRow,
        audit: AuditRow,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let insert = sqlx::query(sql::ADD_TOKEN)
                .bind(token.id)
                .bind(token.hash.0.to_vec())
                .bind(token.node_id)
                .bind(token.created_ms as i64)
                .bind(token.created_by)
                .bind(token.expires_ms as i64);
            let mut session = self.begin().await?;
            session.run(|db| Box::pin(insert.execute(db))).await?;
            session.run(|db| Box::pin(audit::add(db, audit))).await?;
            session.commit().await
        })
    }

    fn revoke_join_token(
        &self,
        id: String,
        at_ms: u64,
        audit: AuditRow,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let revoke = sqlx::query(sql::REVOKE_TOKEN).bind(id).bind(at_ms as i64);
            let mut session = self.begin().await?;
            let revoked = session.run(|db| Box::pin(revoke.execute(db))).await?;
            if revoked.rows_affected() == 0 {
                return Ok(false);
            }
            session.run(|db| Box::pin(audit::add(db, audit))).await?;
            session.commit().await?;
            Ok(true)
        })
    }

    fn join(
        &self,
        attempt: Attempt,
        certificate: CertificateRow,
        audit: AuditRow,
    ) -> BoxFuture<'_, Result<Result<(), Turned>, StoreError>> {
        Box::pin(async move {
            let mut session = self.begin().await?;
            // The lock, before anything is looked at.
            let version = session.run(|db| Box::pin(next_version(db))).await?;
            let kept = sqlx::query(sql::TOKEN).bind(attempt.token_id.clone());
            let kept = session.run(|db| Box::pin(kept.fetch_optional(db))).await?;
            let kept = kept.map(|row| token(&row, self.name())).transpose()?;
            let joined = sqlx::query(sql::JOINED).bind(attempt.node_id.clone());
            let joined = session
                .run(|db| Box::pin(joined.fetch_optional(db)))
                .await?;
            if let Err(turned) = attempt.judge(kept.as_ref(), joined.is_some()) {
                return Ok(Err(turned));
            }
            let (node_id, at_ms) = (attempt.node_id, attempt.at_ms as i64);
            let used = sqlx::query(sql::USE_TOKEN).bind(attempt.token_id);
            let used = used.bind(at_ms).bind(node_id.clone());
            session.run(|db| Box::pin(used.execute(db))).await?;
            let join = sqlx::query(sql::JOIN).bind(node_id).bind(at_ms);
            let join = join.bind(version);
            session.run(|db| Box::pin(join.execute(db))).await?;
            let add = add(certificate, version);
            session.run(|db| Box::pin(add.execute(db))).await?;
            session.run(|db| Box::pin(audit::add(db, audit))).await?;
            session.commit().await?;
            Ok(Ok(()))
        })
    }

    fn renew(
        &self,
        serial: String,
        certificate: CertificateRow,
    ) -> BoxFuture<'_, Result<Result<(), Turned>, StoreError>> {
        Box::pin(async move {
            let mut session = self.begin().await?;
            let version = session.run(|db| Box::pin(next_version(db))).await?;
            let kept = sqlx::query(sql::CERTIFICATE).bind(serial);
            let kept = session.run(|db| Box::pin(kept.fetch_optional(db))).await?;
            let kept = kept.map(|row| self::certificate(&row, self.name()));
            if let Err(turned) = may_renew(kept.transpose()?.as_ref(), &certificate) {
                return Ok(Err(turned));
            }
            let add = add(certificate, version);
            session.run(|db| Box::pin(add.execute(db))).await?;
            session.commit().await?;
            Ok(Ok(()))
        })
    }

    fn certificate(
        &self,
        serial: String,
    ) -> BoxFuture<'_, Result<Option<CertificateRow>, StoreError>> {
        Box::pin(async move {
            let rows = self
                .read(sqlx::query(sql::CERTIFICATE).bind(serial))
                .await?;
            rows.first()
                .map(|row| certificate(row, self.name()))
                .transpose()
        })
    }

    fn revoke_node(
        &self,
        node_id: String,
        at_ms: u64,
        audit: AuditRow,
    ) -> BoxFuture<'_, Result<Option<u32>, StoreError>> {
        Box::pin(async move {
            let at_ms = at_ms as i64;
            let mut session = self.begin().await?;
            let version = session.run(|db| Box::pin(next_version(db))).await?;
            let joined = sqlx::query(sql::JOINED).bind(node_id.clone());
            let joined = session
                .run(|db| Box::pin(joined.fetch_optional(db)))
                .await?;
            if joined.is_none() {
                return Ok(None);
            }
            let good = sqlx::query_scalar(sql::GOOD)
                .bind(node_id.clone())
                .bind(at_ms);
            let good: i64 = session.run(|db| Box::pin(good.fetch_one(db))).await?;
            let revoke = sqlx::query(sql::REVOKE_NODE).bind(node_id).bind(at_ms);
            let revoke = revoke.bind(version);
            session.run(|db| Box::pin(revoke.execute(db))).await?;
            session.run(|db| Box::pin(audit::add(db, audit))).await?;
            session.commit().await?;
            Ok(Some(good as u32))
        })
    }

    fn identities_since(
        &self,
        version: u64,
        at_ms: u64,
    ) -> BoxFuture<'_, Result<IdentityNews, StoreError>> {
        Box::pin(async move {
            let mut session = self.connections.get().await?;
            // The number first: what is written meanwhile is read again.
            let number = sqlx::query_scalar(sql::VERSION);
            let number: i64 = session.run(|db| Box::pin(number.fetch_one(db))).await?;
            if number as u64 == version {
                return Ok(IdentityNews {
                    version,
                    ..IdentityNews::default()
                });
            }
            let joined = sqlx::query(sql::JOINED_SINCE).bind(version as i64);
            let joined = session.run(|db| Box::pin(joined.fetch_all(db))).await?;
            let found = sqlx::query(sql::CERTIFICATES_SINCE).bind(version as i64);
            let found = found.bind(at_ms as i64);
            let found = session.run(|db| Box::pin(found.fetch_all(db))).await?;
            let joined = joined
                .iter()
                .map(|row| rows::text(row, "node_id", self.name()));
            let found = found.iter().map(|row| certificate(row, self.name()));
            Ok(IdentityNews {
                version: number as u64,
                joined: joined.collect::<Result<_, _>>()?,
                certificates: found.collect::<Result<_, _>>()?,
            })
        })
    }

    fn forget_expired(&self, before_ms: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            for statement in [sql::FORGET_CERTIFICATES, sql::FORGET_TOKENS] {
                let query = sqlx::query(statement).bind(before_ms as i64);
                self.execute(query).await?;
            }
            Ok(())
        })
    }
}

impl Postgres {
    async fn begin(&self) -> Result<Session, StoreError> {
        let mut session = self.connections.get().await?;
        session.begin(BEGIN).await?;
        Ok(session)
    }
}

async fn next_version(db: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar(sql::NEXT_VERSION).fetch_one(db).await
}

fn add(certificate: CertificateRow, version: i64) -> super::Statement {
    sqlx::query(sql::ADD_CERTIFICATE)
        .bind(certificate.serial)
        .bind(certificate.node_id)
        .bind(certificate.issued_ms as i64)
        .bind(certificate.expires_ms as i64)
        .bind(version)
}

fn ca(row: &PgRow, name: &Name) -> Result<CaRow, StoreError> {
    Ok(CaRow {
        certificate: row.try_get("certificate").map_err(name.failed())?,
        private_key: row.try_get("private_key").map_err(name.failed())?,
    })
}

fn token(row: &PgRow, name: &Name) -> Result<JoinTokenRow, StoreError> {
    Ok(JoinTokenRow {
        id: rows::text(row, "id", name)?,
        hash: rows::hash(row, "hash", name)?,
        node_id: rows::text(row, "node_id", name)?,
        created_ms: rows::number(row, "created_ms", name)?,
        created_by: rows::text(row, "created_by", name)?,
        expires_ms: rows::number(row, "expires_ms", name)?,
        used_ms: time(row, "used_ms", name)?,
        used_by: rows::text(row, "used_by", name)?,
        revoked_ms: time(row, "revoked_ms", name)?,
    })
}

fn certificate(row: &PgRow, name: &Name) -> Result<CertificateRow, StoreError> {
    Ok(CertificateRow {
        serial: rows::text(row, "serial", name)?,
        node_id: rows::text(row, "node_id", name)?,
        issued_ms: rows::number(row, "issued_ms", name)?,
        expires_ms: rows::number(row, "expires_ms", name)?,
        revoked_ms: time(row, "revoked_ms", name)?,
    })
}

fn time(row: &PgRow, column: &str, name: &Name) -> Result<Option<u64>, StoreError> {
    let time: Option<i64> = row.try_get(column).map_err(name.failed())?;
    Ok(time.map(|time| time as u64))
}
