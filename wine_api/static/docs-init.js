// Shows the document of this service in Swagger UI. Nothing of the page's own address is obeyed (no ?url=).
const place = document.getElementById("swagger-ui");

SwaggerUIBundle({
  domNode: place,
  url: place.dataset.url,
  deepLinking: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  queryConfigEnabled: false,
  validatorUrl: null, // the default one is on another host
});
