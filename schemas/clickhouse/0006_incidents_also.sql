-- Other kinds that were found in the story of an incident.
ALTER TABLE {{.Table "incidents"}}{{.OnCluster}} ADD COLUMN IF NOT EXISTS also Array(String) AFTER request_ids_total;
