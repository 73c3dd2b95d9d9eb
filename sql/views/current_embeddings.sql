-- One row is a published item with its vector. The items are those of the published shards: active, and embedded with their
-- content, when the current generation was published. Vectors have unit length, so vector_inner_product is the cosine.
-- For analysts, and for jobs that need the vectors of a single run.
CREATE OR REPLACE VIEW current_embeddings AS
SELECT
  e.item_id,
  e.model_version,
  i.title,
  i.brand,
  coalesce(nullif(trim(i.category), ''), '(none)') AS category,
  e.has_image,
  e.agreement,
  e.gate_metadata,
  e.gate_exploratory,
  e.embedded_at,
  e.embedding
FROM published_embeddings e
JOIN published_items i ON i.item_id = e.item_id AND i.content_hash = e.content_hash;
