-- A handful of well-known ontologies, each with its first term, in OBO format.
CREATE TABLE ontology (
    id TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    license TEXT NOT NULL,
    content TEXT NOT NULL
);

INSERT INTO ontology VALUES
('go', 'Gene Ontology', 'CC-BY-4.0', 'format-version: 1.2
ontology: go

[Term]
id: GO:0008150
name: biological_process
'),
('hp', 'Human Phenotype Ontology', 'hpo.jax.org', 'format-version: 1.2
ontology: hp

[Term]
id: HP:0000001
name: All
'),
('chebi', 'Chemical Entities of Biological Interest', 'CC-BY-4.0', 'format-version: 1.2
ontology: chebi

[Term]
id: CHEBI:24431
name: chemical entity
'),
('mondo', 'Mondo Disease Ontology', 'CC-BY-4.0', 'format-version: 1.2
ontology: mondo

[Term]
id: MONDO:0000001
name: disease
'),
('uberon', 'Uberon Multi-Species Anatomy Ontology', 'CC-BY-3.0', 'format-version: 1.2
ontology: uberon

[Term]
id: UBERON:0001062
name: anatomical entity
');
