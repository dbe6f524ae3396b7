package proof

import "time"

// Measured says where and when a laboratory measured; it begins each of its documents.
type Measured struct {
	Schema    string    `json:"schema"`
	TakenAt   time.Time `json:"taken_at"`
	ElapsedMS int64     `json:"elapsed_ms"`
	Kernel    string    `json:"kernel"`
	CPUs      int       `json:"cpus"`
}

// Lab is what a run of the laboratory measured (docs/lab.schema.json).
type Lab struct {
	Measured
	Quick  bool    `json:"quick"`
	Proofs []Proof `json:"proofs"`
}

// Scores are what a diagnosis made of what the laboratory built (docs/score.schema.json).
type Scores struct {
	Measured
	Scores []Score `json:"scores"`
}

// Proved is what the laboratory measured of a plan (docs/prove.schema.json).
type Proved struct {
	Measured
	Changes []ProvedChange `json:"changes"`
}

// ProvedChange is one change of the plan, and its proof.
type ProvedChange struct {
	// Scope is where the plan makes it.
	Scope string `json:"scope"`
	Key   string `json:"key"`
	// Old is the value of the base line, New the one of the plan.
	Old string `json:"old"`
	New string `json:"new"`
	// Verdict is empty where it could not be measured, and Cannot says why.
	Verdict Verdict `json:"verdict,omitempty"`
	Because string  `json:"because,omitempty"`
	Cannot  string  `json:"cannot,omitempty"`
	// Notes say what the base line stands on.
	Notes []string `json:"notes"`
	Proof Proof    `json:"proof"`
}
