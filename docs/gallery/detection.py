"""Detection: a box and its kind, told by the mAP. Needs `trainscope-pruning[detection]`."""

import torch
from torch import nn

import trainscope
from trainscope.probes import TrainabilityAccuracy
from trainscope.report import RetrainingDisplay
from trainscope.training.settings import Settings


def drawn(count):  # rectangles, bright or grey, on noise
    images, targets = list(0.3 * torch.rand(count, 1, 32, 32)), []
    for image in images:
        size, grey = torch.randint(10, 21, (2,)), int(torch.rand(()) < 0.5)
        corner = (torch.rand(2) * (32 - size)).long()
        box = torch.cat([corner, corner + size])
        image[:, box[1] : box[3], box[0] : box[2]] += 0.7 - 0.4 * grey
        targets.append({"boxes": box[None].float(), "labels": torch.tensor([1 + grey])})
    return images, targets


class Detector(nn.Module):  # one box an image; called as torchvision's are
    def __init__(self):
        super().__init__()
        steps = [(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()) for a, b in ((1, 16), (16, 32), (32, 32))]
        self.body = nn.Sequential(*sum(steps, ()), nn.Flatten(), nn.Linear(512, 64), nn.ReLU())
        self.box, self.kind = nn.Linear(64, 4), nn.Linear(64, 3)

    def forward(self, images, targets=None):
        features = self.body(torch.stack(list(images)))
        boxes, kinds = self.box(features), self.kind(features)
        if self.training:
            wanted, labels = (torch.cat([t[name] for t in targets]) for name in ("boxes", "labels"))
            near = 10 * nn.functional.mse_loss(boxes, wanted / 32)
            return {"boxes": near, "labels": nn.functional.cross_entropy(kinds, labels)}
        scores, labels = kinds.softmax(1)[:, 1:].max(1)
        rows = zip(32 * boxes[:, None], scores[:, None], labels[:, None] + 1, strict=True)
        return [dict(zip(("boxes", "scores", "labels"), row, strict=True)) for row in rows]


torch.manual_seed(0)
network, train, test = Detector(), drawn(256), drawn(48)
optimizer = torch.optim.Adam(network.parameters(), 2e-3)
for part in torch.rand(50, 256).argsort(1).view(-1, 32):
    optimizer.zero_grad()
    sum(network(*([half[i] for i in part] for half in train)).values()).backward()
    optimizer.step()

settings = Settings(optimizer="adamw", batch_size=32)
probes = [TrainabilityAccuracy(lrs=(5e-4, 1e-4), epochs=5, settings=settings)]
options = {"task": "detection", "samples": 16, "probes": probes}
diagnosis = trainscope.diagnose(network, ratio=0.5, data=(train, test), **options)
print(*diagnosis.verdict, sep="\n")
RetrainingDisplay.from_diagnosis(diagnosis).plot().figure_.savefig("detection.png")
