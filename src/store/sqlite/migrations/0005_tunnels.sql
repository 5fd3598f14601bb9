-- Whether a handle may open tunnels to hosts that are neither a provider's nor listed.
ALTER TABLE handles ADD COLUMN tunnels INTEGER NOT NULL DEFAULT 0;
