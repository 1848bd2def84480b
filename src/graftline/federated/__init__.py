"""Fine-tuning where the data lie: sites learn, signed updates travel, the coordinator averages and keeps the account.

    sites        sites.yaml: who takes part, where their updates appear, by which key they sign
    orders       what the coordinator asks of the sites in a round: signed, in its store
    taking_part  a site's round: fetch the order, fine-tune, sign the update, put it into the site's own store
    updates      an update: what it holds, and by which rules it is left out
    averaging    weights of sites, and the average of models, tensor by tensor
    account      a round's account, in the model's record and in the coordinator's ledger
    workers      sites that run on this machine, a process each
    loaded       what these have loaded before they begin
    rounds       the coordinator's story, from the first model to the last

docs/decisions/federated.md has the threat model.
"""
