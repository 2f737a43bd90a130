// Shows the document of this service in ReDoc.
const place = document.getElementById("redoc");

Redoc.init(place.dataset.url, { disableGoogleFont: true }, place);
